// Keeps a copy of the switch; see docs/consuming.md. Needs eventsource-parser.
import { EventSourceParserStream } from "eventsource-parser/stream";

const [FIRST_WAIT, LONGEST_WAIT] = [500, 10_000]; // in ms, between two connections
const SILENCE = 45_000; // the service is heard every 15 seconds

class Refused extends Error {}

/** What stands, then each change. Connects again by itself; throws Refused where that is of no use. */
async function* follow(url, getToken) {
  let lastEventId = {};
  let wait = FIRST_WAIT;
  for (;;) {
    let problem = "the stream ended";
    let timer;
    const connection = new AbortController();
    const listen = () => {
      clearTimeout(timer);
      timer = setTimeout(() => connection.abort(new Error("nothing heard for 45 s")), SILENCE);
    };
    const heard = () => { wait = FIRST_WAIT; listen(); };
    try {
      listen();
      const headers = { Accept: "text/event-stream", Authorization: `Bearer ${await getToken()}`, ...lastEventId };
      const response = await fetch(url, { headers, cache: "no-store", signal: connection.signal });
      if (response.status >= 400 && response.status < 500) throw new Refused(`${response.status}: ${await response.text()}`);
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      const events = response.body
        .pipeThrough(new TextDecoderStream())
        .pipeThrough(new EventSourceParserStream({ onComment: heard, onRetry: heard }))
        .getReader();
      for (let next = await events.read(); !next.done; next = await events.read()) {
        heard();
        const { event, id, data } = next.value;
        if (event !== "change" && event !== "reset") continue;
        const setting = JSON.parse(data);
        lastEventId = { "Last-Event-ID": id };
        yield setting;
      }
    } catch (error) {
      if (error instanceof Refused) throw error;
      problem = [error.message, error.cause?.message].filter(Boolean).join(": ");
    } finally {
      clearTimeout(timer);
      connection.abort();
    }
    console.error(`${problem}; connecting again`);
    await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
    wait = Math.min(2 * wait, LONGEST_WAIT);
  }
}

try {
  for await (const { version, enabled } of follow(new URL(process.env.EVENTS_URL), () => process.env.TOKEN)) {
    console.log(`${version} ${enabled ? "on" : "off"}`);
  }
} catch (error) {
  if (!(error instanceof Refused)) throw error;
  console.error(`refused, ${error.message}`);
  process.exitCode = 1;
}
