// The server's API: the token, JSON whose numbers keep their digits, and the stream of events.

// Exact is a number that JavaScript can't hold; it is shown as it was written.
export class Exact {
  constructor(text) { this.text = text; }
  toString() { return this.text; }
}

function parse(text) {
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && context && String(value) !== context.source ? new Exact(context.source) : value);
}

export class Failure extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

// Until the browser closes the tab.
const tokenKey = "capture-token";
export const token = () => sessionStorage.getItem(tokenKey);
export const keepToken = (text) => sessionStorage.setItem(tokenKey, text);

// askToken is set by the page; it resolves once the user has given a token.
let askToken = async () => {};
export const onTokenNeeded = (ask) => { askToken = ask; };

let asking = null;

async function request(path, options = {}) {
  for (;;) {
    const sent = token();
    const headers = sent ? { Authorization: "Bearer " + sent } : {};
    const response = await fetch(path, { ...options, headers, credentials: "omit", redirect: "error" });
    if (response.status === 401) {
      if (token() === sent) {
        asking ??= askToken(sent ? "That is not the token." : "").finally(() => { asking = null; });
      }
      if (asking) await asking;
      continue;
    }
    if (!response.ok) {
      let text = response.statusText;
      try {
        text = (await response.json()).error || text;
      } catch {
        // no JSON: the status has to do
      }
      throw new Failure(response.status, text);
    }
    return response;
  }
}

export async function get(path, signal) {
  return parse(await (await request(path, { signal })).text());
}

// download saves what a path answers, where a plain link would lack the token.
export async function download(path, name) {
  const response = await request(path);
  const given = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") || "");
  const url = URL.createObjectURL(await response.blob());
  const a = document.createElement("a");
  a.href = url;
  a.download = given ? given[1] : name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// events calls on(name, data) for each event, and state(connected, failure) as the connection comes and goes, for ever;
// failure is why the server refused the stream, null where it did not answer at all.
// EventSource can't send the token.
export async function events(path, on, state) {
  let pause = 1000;
  for (;;) {
    try {
      const response = await request(path);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      state(true);
      pause = 1000;
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        rest += value;
        for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) {
          let name = "message", data = "";
          for (const line of rest.slice(0, end).split("\n")) {
            if (line.startsWith("event: ")) name = line.slice(7);
            if (line.startsWith("data: ")) data += line.slice(6);
          }
          on(name, parse(data));
        }
      }
      state(false, null);
    } catch (e) {
      state(false, e instanceof Failure ? e : null);
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, 10_000);
  }
}
