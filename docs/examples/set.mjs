// Sets the switch on the condition that what was seen still stands; see docs/consuming.md. Needs no package.
import { createInterface } from "node:readline";

const ATTEMPTS = 5;

class Refused extends Error {}
class Conflicts extends Error {}

/**
 * Sets what `decide` makes of what stands and its ETag, and asks it anew after a conflict; returns what stands then.
 * Throws Refused where the service refuses it, Conflicts after too many of them; with any other error, nobody knows.
 */
async function change(url, token, decide) {
  const request = async (more) => {
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json", ...more?.headers };
    const response = await fetch(url, { ...more, headers, cache: "no-store", signal: AbortSignal.timeout(10_000) });
    const text = await response.text();
    if (response.ok) return { ...JSON.parse(text), etag: response.headers.get("ETag") };
    if (response.status === 409) return null;
    throw new (response.status < 500 ? Refused : Error)(`${response.status}: ${text}`);
  };
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const seen = await request();
    const body = JSON.stringify({ enabled: await decide(seen.enabled, seen.etag) });
    const stored = await request({ method: "POST", headers: { "If-Match": seen.etag }, body });
    if (stored) return stored;
  }
  throw new Conflicts(`${ATTEMPTS} conflicts, one after the other`);
}

class Undecided extends Error {}

const input = createInterface({ input: process.stdin });
const lines = input[Symbol.asyncIterator]();

/** What a person decides who is shown what stands. */
async function ask(enabled, version) {
  console.log(enabled ? "on" : "off", version);
  const line = (await lines.next()).value?.trim();
  if (line !== "on" && line !== "off") throw new Undecided("expected on or off");
  return line === "on";
}

try {
  const { enabled, etag } = await change(process.env.SETTING_URL, process.env.TOKEN, ask);
  console.log("set:", enabled ? "on" : "off", etag);
} catch (error) {
  if (error instanceof Refused) console.error(`refused, ${error.message}`);
  else if (error instanceof Conflicts || error instanceof Undecided) console.error(`nothing was set: ${error.message}`);
  else throw error;
  process.exitCode = 1;
} finally {
  input.close();
}
