// Follows the setting and prints each change; see docs/consuming.md. Needs eventsource-parser.
import { EventSourceParserStream } from "eventsource-parser/stream";

const [FIRST_WAIT, LONGEST_WAIT] = [500, 10_000]; // milliseconds before a reconnection
const SILENCE = 45_000; // milliseconds; the service sends a comment every 15 seconds

class Rejected extends Error {}

/**
 * Yields the current setting, then each change. Reconnects if the connection ends.
 * Throws Rejected if the service rejects the request (400 to 499): it would reject every repetition too.
 */
async function* follow(url, getToken) {
  let lastEventId = {};
  let wait = FIRST_WAIT;
  for (;;) {
    let problem = "the stream ended";
    let timer;
    const connection = new AbortController();
    const restartTimer = () => {
      clearTimeout(timer);
      timer = setTimeout(() => connection.abort(new Error("no data for 45 s")), SILENCE);
    };
    const onData = () => { wait = FIRST_WAIT; restartTimer(); };
    try {
      restartTimer();
      const headers = { Accept: "text/event-stream", Authorization: `Bearer ${await getToken()}`, ...lastEventId };
      const response = await fetch(url, { headers, cache: "no-store", signal: connection.signal });
      if (response.status >= 400 && response.status < 500) throw new Rejected(`${response.status}: ${await response.text()}`);
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      const events = response.body
        .pipeThrough(new TextDecoderStream())
        .pipeThrough(new EventSourceParserStream({ onComment: onData, onRetry: onData }))
        .getReader();
      for (let next = await events.read(); !next.done; next = await events.read()) {
        onData();
        const { event, id, data } = next.value;
        if (event !== "change" && event !== "reset") continue;
        const setting = JSON.parse(data);
        lastEventId = { "Last-Event-ID": id };
        yield setting;
      }
    } catch (error) {
      if (error instanceof Rejected) throw error;
      problem = [error.message, error.cause?.message || error.cause?.code].filter(Boolean).join(": ");
    } finally {
      clearTimeout(timer);
      connection.abort();
    }
    console.error(`${problem}; reconnecting`);
    await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
    wait = Math.min(2 * wait, LONGEST_WAIT);
  }
}

process.stdout.on("error", () => process.exit(1)); // nothing reads the output any more

try {
  const missing = ["OMS_CONFIG_URL", "OMS_CONFIG_TOKEN"].filter((name) => !process.env[name]);
  if (missing.length) throw new Error(`${missing.join(", ")} must be set`);
  const url = new URL("/v0/config/sales_order/external_oms/events", process.env.OMS_CONFIG_URL);
  const getToken = () => process.env.OMS_CONFIG_TOKEN;
  for await (const { version, enabled } of follow(url, getToken)) {
    console.log(`${version} ${enabled ? "on" : "off"}`);
  }
} catch (error) {
  console.error(`${error instanceof Rejected ? "rejected" : "failed"}: ${error.message}`);
  process.exitCode = 1;
}
