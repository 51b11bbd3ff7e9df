// Sets the setting unless it has changed since it was read; see docs/consuming.md. Needs no package.
import { createInterface } from "node:readline";

const ATTEMPTS = 5;

class Rejected extends Error {}
class Unset extends Error {}

/**
 * Reads the setting, calls `decide` with its value and ETag, and sets the value that `decide` returns.
 * After a conflict, reads again and calls `decide` again. Returns the new setting and its ETag.
 * Throws Rejected if the service rejects the request, and Unset after ATTEMPTS conflicts, or without an ETag.
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
    if (!current.etag) throw new Unset("the response has no ETag: a proxy in front of the service removes it");
    const body = JSON.stringify({ enabled: await decide(current.enabled, current.etag) });
    const stored = await request({ method: "POST", headers: { "If-Match": current.etag }, body });
    if (stored) return stored;
  }
  throw new Unset(`${ATTEMPTS} conflicts in a row`);
}

const input = createInterface({ input: process.stdin });
const lines = input[Symbol.asyncIterator]();

/** Prints the current setting and returns the value that the user types. */
async function ask(enabled, version) {
  console.log(enabled ? "on" : "off", version);
  const line = (await lines.next()).value?.trim();
  if (line !== "on" && line !== "off") throw new Unset("expected on or off");
  return line === "on";
}

try {
  const missing = ["OMS_CONFIG_URL", "OMS_CONFIG_TOKEN"].filter((name) => !process.env[name]);
  if (missing.length) throw new Unset(`${missing.join(", ")} must be set`);
  const url = new URL("/v0/config/sales_order/external_oms", process.env.OMS_CONFIG_URL);
  const { enabled, etag } = await change(url, process.env.OMS_CONFIG_TOKEN, ask);
  console.log("set:", enabled ? "on" : "off", etag);
} catch (error) {
  if (error instanceof Rejected) console.error(`rejected: ${error.message}`);
  else if (error instanceof Unset) console.error(`nothing was set: ${error.message}`);
  else {
    const reason = [error.message, error.cause?.message || error.cause?.code].filter(Boolean).join(": ");
    console.error(`failed, the setting may or may not have been set: ${reason}`);
  }
  process.exitCode = 1;
} finally {
  input.close();
}
