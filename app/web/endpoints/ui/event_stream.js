// Shows event streams as they arrive. Swagger UI would wait for the end of the response.

const MEDIA_TYPE = "text/event-stream";
const MAX_EVENTS = 100; // the newest ones are shown

/** A response whose events are read until it ends or `stop` is called. `onChange` is called after each change. */
class EventStream {
  events = []; // newest first
  received = 0;
  status = "Connected. Each change appears here when it is made.";
  onChange = () => {};

  constructor(id, body, controller) {
    this.id = id;
    this._controller = controller;
    this._read(body.pipeThrough(new TextDecoderStream()));
  }

  stop() {
    this._end("Stopped.");
    this._controller.abort();
  }

  async _read(chunks) {
    let rest = "";
    try {
      for (const reader = chunks.getReader(); ; ) {
        const { value, done } = await reader.read();
        if (done) {
          break;
        }
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        this._add(blocks.filter((block) => /^data:/m.test(block))); // others are comments and the retry time
      }
      this._end("The server has ended the stream. Execute again to continue.");
    } catch (error) {
      this._end(`The connection was lost (${error.message}). Execute again to continue.`);
    }
  }

  _add(events) {
    this.received += events.length;
    const numbered = events.map((text, index) => ({ text, number: this.received - events.length + index + 1 }));
    this.events = [...numbered.reverse(), ...this.events].slice(0, MAX_EVENTS);
    this.onChange();
  }

  _end(status) {
    if (!this.ended) {
      this.ended = true;
      this.status = status;
      this.onChange();
    }
  }
}

// What is shown for a stream that another one has replaced.
const REPLACED = { id: 0, events: [], status: "Stopped.", ended: true, stop: () => {} };

/** The plugin. It opens one stream at a time, and shows it where Swagger UI shows the body of a response. */
export const eventStreams = ({ React: { createElement, useEffect, useReducer } }) => {
  let newest = REPLACED;

  const userFetch = async (url, request) => {
    const controller = new AbortController();
    const response = await fetch(url, { ...request, signal: controller.signal });
    if (!(response.headers.get("Content-Type") || "").startsWith(MEDIA_TYPE)) {
      return response;
    }
    newest.stop();
    newest = new EventStream(newest.id + 1, response.body, controller);
    // Swagger UI gets a complete response. Its body says which stream to show.
    return new Response(newest.id, response);
  };

  const EventLog = ({ content }) => {
    const [, update] = useReducer((count) => count + 1, 0);
    const stream = String(newest.id) === content ? newest : REPLACED;
    useEffect(() => {
      stream.onChange = update;
      update(); // it may have changed since the first rendering
      return () => {
        stream.onChange = () => {};
        stream.stop();
      };
    }, [stream]);
    return createElement(
      "div",
      { className: "event-log" },
      createElement("h5", null, "Events, newest first"),
      createElement("p", { role: "status" }, stream.status),
      !stream.ended && createElement("button", { className: "btn", onClick: () => stream.stop() }, "Stop"),
      createElement(
        "section",
        { "aria-label": "Events", "aria-live": "polite", tabIndex: 0 },
        stream.events.map(({ number, text }) => createElement("pre", { key: number, className: "microlight" }, text)),
      ),
    );
  };

  return {
    statePlugins: {
      auth: {
        wrapActions: {
          // Otherwise, events would still arrive for a token that the page no longer has.
          logout: (logout) => (names) => {
            newest.stop();
            return logout(names);
          },
        },
      },
      spec: {
        wrapActions: {
          executeRequest: (execute) => (request) => execute({ ...request, userFetch }),
        },
      },
    },
    wrapComponents: {
      responseBody: (Body) => (props) =>
        (props.contentType || "").startsWith(MEDIA_TYPE)
          ? createElement(EventLog, { key: props.content, content: props.content })
          : createElement(Body, props),
    },
  };
};
