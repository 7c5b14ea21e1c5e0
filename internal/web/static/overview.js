// The upper part of the page: what capture is doing, votes per day, tags by count.

import { $, el } from "./dom.js";
import { count, duration, positive } from "./value.js";

const states = {
  following: ["Following", "good"],
  connecting: ["Connecting", "warn"],
  copying: ["Copying the table", "warn"],
  waiting: ["Not following", "bad"],
  stopping: ["Stopping", "warn"],
};

let status = null;      // the last one heard
let contact = null;     // when the database was last heard, for all we know
let skew = 0;           // the server's clock minus ours, near enough
let unreachable = null; // since when the server is gone
let refused = "";       // why there are no live events

const since = (stamp) => (ago(stamp) < 1.5 ? "just now" : duration(ago(stamp)) + " ago");
const ago = (stamp) => Math.max(0, (Date.now() + skew - Date.parse(stamp)) / 1000);
const clock = (stamp) => new Date(stamp).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });

export function setStatus(next) {
  status = next;
  contact = status.last_contact || contact;
  // The server's newest stamp can't lie in its future.
  const stamps = [status.last_contact, status.file?.written, status.started].filter(Boolean).map(Date.parse);
  skew = Math.max(0, ...stamps.map((s) => s - Date.now()));
  showStatus();
}

export function setReachable(yes, trouble = "") {
  if (yes) unreachable = null;
  else unreachable ??= Date.now();
  refused = trouble;
  showStatus();
}

function pill(text, kind) {
  const p = $("state");
  if (p.textContent !== text) p.textContent = text;
  p.className = "pill " + kind;
}

function put(id, text, title) {
  const e = $(id);
  if (e.textContent !== text) e.textContent = text;
  if (title !== undefined && e.title !== title) e.title = title;
}

export function showStatus() {
  if (unreachable !== null) {
    pill("No answer", "bad");
    banner("capture does not answer.", `This page shows what it knew at ${clock(unreachable)}, and tries again by itself.`);
  }
  if (!status) return;
  put("fact-source", status.source || "none yet", status.source_note || "");
  put("fact-lag", status.state === "following" ? duration(status.lag_seconds) : "unknown", status.lag_bytes ? `${count(status.lag_bytes)} bytes of WAL` : "");
  put("fact-file", status.file.written ? since(status.file.written) : "not yet",
    status.file.written ? `${clock(status.file.written)}, ${count(status.file.rows)} rows, ${count(status.file.bytes)} bytes` : "");
  put("fact-rows", count(status.rows));
  if (unreachable !== null) return;

  const [text, kind] = states[status.state] || [status.state, "warn"];
  const failing = (status.checks || []).filter((c) => !c.ok);
  if (status.ready) {
    pill(text, kind);
    banner(refused && "This page is not live.", refused);
    return;
  }
  pill(status.state === "following" ? "Following, with trouble" : text, status.state === "following" ? "warn" : kind);
  const why = failing.map((c) => c.detail).filter(Boolean).join(" ") || status.error || "";
  if (status.state === "following") banner("Something is wrong.", why);
  else if (contact) banner(`Stale: the database was last heard ${since(contact)}, on ${clock(contact)}.`, "The votes below are as they were then. " + why);
  else if (status.file.written) banner(`Stale: the votes below are as they were ${since(status.file.written)} or later, on ${clock(status.file.written)}.`, why);
  else banner("No votes to show yet.", why);
}

let shown = "";

function banner(head, text) {
  const b = $("banner");
  // The seconds in it count up; only news is to be read out.
  const news = (head || "").replace(/\d+/g, "") + (text || "");
  b.hidden = !head;
  if (!head) shown = "";
  else if (news !== shown || b.children.length === 0) {
    shown = news;
    b.replaceChildren(el("strong", {}, head), text);
  } else b.firstElementChild.textContent = head;
}

// showDays draws the bars; chosen is the day that the filter has.
export function showDays(days, chosen, choose) {
  $("days-card").hidden = !days;
  if (!days) return;
  const most = Math.max(1, ...days.map((d) => d.total));
  const bars = $("days");
  const had = bars.contains(document.activeElement) ? document.activeElement.dataset.day : null;
  const active = chosen || had || days.at(-1).day;
  bars.replaceChildren(...days.map((d) => {
    const none = d.total - d.positive - d.negative;
    const label = `${d.day}: ${count(d.total)} ${d.total === 1 ? "vote" : "votes"}` +
      (d.total ? `, ${count(d.positive)} positive, ${count(d.negative)} negative` + (none ? `, ${count(none)} untagged` : "") : "");
    const seg = (n, kind) => {
      if (n === 0) return null;
      const s = el("span", { class: "seg " + kind });
      s.style.height = (100 * n) / most + "%";
      return s;
    };
    return el("button", {
      type: "button", title: label, "aria-label": label, "data-day": d.day, tabindex: d.day === active ? "0" : "-1",
      "aria-pressed": String(d.day === chosen), onclick: () => choose(d.day === chosen ? "" : d.day),
    }, seg(none, "none"), seg(d.negative, "bad"), seg(d.positive, "good"));
  }));
  if (!bars.querySelector('[tabindex="0"]')) bars.lastElementChild.tabIndex = 0;
  if (had) bars.querySelector(`[data-day="${CSS.escape(had)}"]`)?.focus();
  put("days-max", count(most));
  put("days-first", days[0].day);
  put("days-middle", days[Math.floor(days.length / 2)].day);
  put("days-last", days.at(-1).day);
}

$("days").addEventListener("keydown", (e) => {
  const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[e.key];
  if (!step || !e.target.dataset.day) return;
  const all = [...$("days").children];
  const next = all[Math.min(all.length - 1, Math.max(0, all.indexOf(e.target) + step))];
  e.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
  e.preventDefault();
});

// showTags lists the tags by count, in the card and in the filter.
export function showTags(tags, more, untagged, chosen, choose) {
  $("tags-card").hidden = !tags;
  $("tag-field").hidden = !tags;
  if (!tags) return;
  const most = Math.max(1, ...tags.map((t) => t.count));
  const focused = $("tags").contains(document.activeElement) ? document.activeElement.dataset.tag : null;
  $("tags").replaceChildren(...tags.map((t) => {
    const fill = el("span", { class: positive(t.tag) ? "fill good" : "fill" });
    fill.style.width = (100 * t.count) / most + "%";
    return el("li", {}, el("button", {
      type: "button", "data-tag": t.tag, "aria-pressed": String(t.tag === chosen), onclick: () => choose(t.tag === chosen ? "" : t.tag),
    }, fill, el("span", {}, t.tag), el("span", { class: "n" }, count(t.count))));
  }));
  const rest = [more ? `${count(more)} further tags` : "", untagged ? `${count(untagged)} votes without a tag` : ""].filter(Boolean).join(" · ");
  if (rest) $("tags").append(el("li", { class: "hint" }, rest));
  if (tags.length === 0 && !rest) $("tags").append(el("li", { class: "hint" }, "No tags yet."));
  if (focused) [...$("tags").querySelectorAll("button")].find((b) => b.dataset.tag === focused)?.focus();

  const select = $("tag");
  if (document.activeElement === select) return; // don't pull an open list away
  const names = tags.map((t) => t.tag);
  if (chosen && !names.includes(chosen)) names.unshift(chosen);
  select.replaceChildren(el("option", { value: "" }, "Any"), ...names.map((n) => el("option", { value: n }, n)));
  select.value = chosen;
}

