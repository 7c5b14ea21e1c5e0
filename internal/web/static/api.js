// Requests to the server: the token, answers as JSON, downloads, and the stream of events. Paths are relative to the page, so
// the page works below any path of a proxy.

import { parseJSON } from "./json.js";

// APIError is an error that the server has answered. Its message says what is wrong.
export class APIError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

// The token stays in the session storage, which the browser deletes with the tab.
const tokenKey = "capture-token";
export const getToken = () => sessionStorage.getItem(tokenKey);
export const setToken = (token) => sessionStorage.setItem(tokenKey, token);

let askForToken = async () => {};
let tokenRequest = null; // pending question for the token; all requests that wait for the token share it

// onTokenNeeded sets the function that asks the user for a token. The function's argument is the reason, which is "" the first
// time. The function resolves once the token is set.
export const onTokenNeeded = (ask) => { askForToken = ask; };

async function request(path, options = {}) {
  for (;;) {
    const token = getToken();
    const headers = token ? { Authorization: "Bearer " + token } : {};
    const response = await fetch(path, { ...options, headers, credentials: "omit", redirect: "error" });
    if (response.status === 401) {
      if (getToken() === token) {
        tokenRequest ??= askForToken(token ? "This token is not valid." : "").finally(() => { tokenRequest = null; });
      }
      if (tokenRequest) await tokenRequest;
      continue;
    }
    if (!response.ok) throw new APIError(response.status, await errorText(response));
    return response;
  }
}

async function errorText(response) {
  try {
    return (await response.json()).error || response.statusText;
  } catch {
    return response.statusText; // the answer of a proxy is not JSON
  }
}

export async function get(path, signal) {
  return parseJSON(await (await request(path, { signal })).text());
}

// download saves a file. The browser itself loads the file, so the file need not fit into the tab's memory. A link cannot send
// the token, so the link contains a ticket, which the server accepts once.
export async function download(address, name) {
  const [path, query] = address.split("?");
  const params = new URLSearchParams(query);
  params.set("file", path.replace("api/", ""));
  const { ticket } = await (await request("api/downloads?" + params, { method: "POST" })).json();
  params.delete("file");
  params.set("ticket", ticket);
  const link = document.createElement("a");
  link.href = path + "?" + params;
  link.download = name;
  link.click();
}

// followEvents reads the stream of events, and connects again whenever the stream ends. It calls onEvent(name, data) for each
// event. It calls onState(connected, error) when the connection begins or ends; error is the APIError with which the server has
// refused the stream, or null. EventSource is not suitable, because it cannot send the token.
export async function followEvents(path, onEvent, onState) {
  let pause = 1000;
  for (;;) {
    try {
      const response = await request(path);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let received = "";
      onState(true, null);
      pause = 1000;
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const { events, rest } = splitEvents(received + value);
        received = rest;
        for (const event of events) onEvent(event.name, parseJSON(event.data));
      }
      onState(false, null);
    } catch (error) {
      onState(false, error instanceof APIError ? error : null);
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, 10_000);
  }
}

// splitEvents returns the complete events in a piece of the stream, and the text after the last complete event.
export function splitEvents(text) {
  const blocks = text.split("\n\n");
  const rest = blocks.pop();
  const events = blocks.map((block) => {
    const event = { name: "message", data: "" };
    for (const line of block.split("\n")) {
      if (line.startsWith("event: ")) event.name = line.slice(7);
      if (line.startsWith("data: ")) event.data += line.slice(6);
    }
    return event;
  });
  return { events, rest };
}
