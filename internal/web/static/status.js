// The top of the page: the state of capture, and a banner if the votes below are not live.

import { $, el } from "./dom.js";
import { formatCount, formatDuration } from "./format.js";

const stateTexts = {
  following: ["Following", "good"],
  connecting: ["Connecting", "warn"],
  copying: ["Copying the table", "warn"],
  waiting: ["Not following", "bad"],
  stopping: ["Stopping", "warn"],
};

// current holds what the page knows about capture.
const current = {
  status: null,           // the last status received
  lastContact: null,      // timestamp of the last known contact with the database
  skew: 0,                // estimated milliseconds by which the server's clock is ahead of the browser's clock
  unreachableSince: null, // time since which the server has not responded; null if it responds
  streamError: "",        // reason why the server refuses the stream of events, or ""
};

export function setStatus(status) {
  current.status = status;
  current.lastContact = status.last_contact || current.lastContact;
  // No timestamp of the server is later than the server's clock.
  const timestamps = [status.last_contact, status.file?.written, status.started].filter(Boolean).map(Date.parse);
  current.skew = Math.max(0, ...timestamps.map((time) => time - Date.now()));
  showStatus();
}

export function setReachable(reachable, streamError = "") {
  if (reachable) current.unreachableSince = null;
  else current.unreachableSince ??= Date.now();
  current.streamError = streamError;
  showStatus();
}

// showStatus also runs every second, because the page shows how long ago things happened.
export function showStatus() {
  const { status } = current;
  if (status) {
    for (const [id, text, title] of factsOf(status, serverTime())) showText($(id), text, title);
  }
  const { pill, banner } = summaryOf(current, serverTime());
  if (pill) {
    showText($("state"), pill.text);
    $("state").className = "pill " + pill.kind;
    showBanner(banner);
  }
}

const serverTime = () => Date.now() + current.skew;

// factsOf returns the facts that the header shows, each as an element's ID, its text and its tooltip.
function factsOf(status, now) {
  const { written, rows, bytes } = status.file;
  const lag = status.state === "following" ? formatDuration(status.lag_seconds) : "unknown";
  return [
    ["fact-source", status.source || "none yet", status.source_note || ""],
    ["fact-lag", lag, status.lag_bytes ? `${formatCount(status.lag_bytes)} bytes of WAL` : ""],
    ["fact-file", written ? ago(written, now) : "not yet",
      written ? `${clock(written)}, ${formatCount(rows)} rows, ${formatCount(bytes)} bytes` : ""],
    ["fact-rows", formatCount(status.rows), ""],
  ];
}

// notices are the checks that the page shows even if capture is ready, the most important first. The detail of a loss contains
// the command that restores the rows.
const notices = [
  ["loss", "The table has lost rows or values."],
  ["columns", "A column for this page is missing."],
];

// noticeOf returns the banner for the most important notice. If there is no notice, the banner's head is "".
function noticeOf(status) {
  for (const [name, head] of notices) {
    const check = (status.checks || []).find((check) => check.name === name && !check.ok);
    if (check) return { head, text: check.detail };
  }
  return { head: "", text: "" };
}

// summaryOf returns the texts of the pill and of the banner. The banner's head is "" if all is well. Before the first answer,
// summaryOf returns neither.
export function summaryOf({ status, lastContact, unreachableSince, streamError }, now) {
  if (unreachableSince !== null) {
    return {
      pill: { text: "No answer", kind: "bad" },
      banner: {
        head: "capture is not responding.",
        text: `Showing what was known at ${clock(unreachableSince)}. The page keeps trying to reconnect.`,
      },
    };
  }
  if (!status) return {};
  const [text, kind] = stateTexts[status.state] || [status.state, "warn"];
  if (status.ready) {
    const banner = streamError ? { head: "Live updates are off.", text: streamError } : noticeOf(status);
    return { pill: { text, kind }, banner };
  }

  const failing = (status.checks || []).filter((check) => !check.ok);
  const reason = failing.map((check) => check.detail).filter(Boolean).join(" ") || status.error || "";
  const following = status.state === "following";
  const pill = following ? { text: "Following, with problems", kind: "warn" } : { text, kind };
  if (following) return { pill, banner: { head: "capture reports a problem.", text: reason } };
  const asOf = lastContact || status.file.written;
  if (!asOf) return { pill, banner: { head: "No votes to show yet.", text: reason } };
  const head = lastContact
    ? `Not live: showing votes as of the last contact with the database, ${ago(asOf, now)} (${clock(asOf)}).`
    : `Not live: showing votes as of at least ${ago(asOf, now)} (${clock(asOf)}).`;
  return { pill, banner: { head, text: reason } };
}

function ago(timestamp, now) {
  const seconds = Math.max(0, (now - Date.parse(timestamp)) / 1000);
  return seconds < 1.5 ? "just now" : formatDuration(seconds) + " ago";
}

const clock = (timestamp) => new Date(timestamp).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });

// showText changes an element only if its text changes. A selection then remains, and a screen reader stays silent.
function showText(element, text, title = "") {
  if (element.textContent !== text) element.textContent = text;
  if (element.title !== title) element.title = title;
}

let announced = ""; // the banner's text without its numbers

// showBanner replaces the banner only for a new message, which a screen reader announces. Otherwise it only updates the head,
// in which the seconds count up.
function showBanner({ head, text }) {
  const banner = $("banner");
  banner.hidden = !head;
  if (!head) {
    announced = "";
    return;
  }
  const message = head.replace(/\d+/g, "") + text;
  if (message === announced && banner.children.length > 0) {
    banner.firstElementChild.textContent = head;
    return;
  }
  announced = message;
  banner.replaceChildren(el("strong", {}, head), text);
}
