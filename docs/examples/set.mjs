// Sets the setting unless it has changed since it was read; see docs/consuming.md. Needs no package.
import { createInterface } from "node:readline";

const ATTEMPTS = 5;

class Rejected extends Error {}
class Conflicts extends Error {}

/**
 * Reads the setting, calls `decide` with its value and ETag, and sets the value that `decide` returns.
 * After a conflict, reads again and calls `decide` again. Returns the new setting and its ETag.
 * Throws Rejected if the service rejects the request, and Conflicts after ATTEMPTS conflicts.
 * After any other error, the setting may or may not have been set.
 */
async function change(url, token, decide) {
  const request = async (options) => {
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json", ...options?.headers };
    const response = await fetch(url, { ...options, headers, cache: "no-store", signal: AbortSignal.timeout(10_000) });
    const text = await response.text();
    if (response.ok) return { ...JSON.parse(text), etag: response.headers.get("ETag") };
    if (response.status === 409) return null;
    throw new (response.status < 500 ? Rejected : Error)(`${response.status}: ${text}`);
  };
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const current = await request();
    const body = JSON.stringify({ enabled: await decide(current.enabled, current.etag) });
    const stored = await request({ method: "POST", headers: { "If-Match": current.etag }, body });
    if (stored) return stored;
  }
  throw new Conflicts(`${ATTEMPTS} conflicts in a row`);
}

class Undecided extends Error {}

const input = createInterface({ input: process.stdin });
const lines = input[Symbol.asyncIterator]();

/** Prints the current setting and returns the value that the user types. */
async function ask(enabled, version) {
  console.log(enabled ? "on" : "off", version);
  const line = (await lines.next()).value?.trim();
  if (line !== "on" && line !== "off") throw new Undecided("expected on or off");
  return line === "on";
}

try {
  const { enabled, etag } = await change(process.env.SETTING_URL, process.env.OMS_CONFIG_TOKEN, ask);
  console.log("set:", enabled ? "on" : "off", etag);
} catch (error) {
  if (error instanceof Rejected) console.error(`rejected: ${error.message}`);
  else if (error instanceof Conflicts || error instanceof Undecided) console.error(`nothing was set: ${error.message}`);
  else throw error;
  process.exitCode = 1;
} finally {
  input.close();
}
