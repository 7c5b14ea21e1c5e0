// The feedback page: wires the parts together. The filter and the open vote live in the address's fragment, which no
// server ever sees: #q=…&tag=…&from=…&to=…&vote=…

import { $, el } from "./dom.js";
import { download, events, Failure, get, keepToken, onTokenNeeded, token } from "./api.js";
import { setReachable, setStatus, showDays, showStatus, showTags } from "./overview.js";
import { chip, count, excerpt, marked, moment, tagsOf, unmarked } from "./value.js";
import { show } from "./detail.js";

const names = ["q", "tag", "from", "to"];
const pageSize = 50;
const kept = 500; // rows in the list while new ones arrive

let columns = [];
let summary = null;
let filter = { q: "", tag: "", from: "", to: "" };
let rows = [];        // shown, newest first: {key, row}
let next = null;      // where the list goes on, null at the end
let loading = null;   // AbortController of the list's request
let waiting = 0;      // new votes not shown because of the filter
let opened = "";      // key of the open vote
let grown = false;    // more than one page is shown

const words = () => filter.q.split(/\s+/).filter(Boolean);
const filtered = () => names.some((n) => filter[n]);

function query(extra = {}) {
  const p = new URLSearchParams();
  for (const n of names) if (filter[n]) p.set(n, filter[n]);
  for (const [k, v] of Object.entries(extra)) p.set(k, v);
  const text = p.toString();
  return text ? "?" + text : "";
}

function fragment(change) {
  const p = new URLSearchParams();
  const all = { ...filter, vote: opened, ...change };
  for (const n of [...names, "vote"]) if (all[n]) p.set(n, all[n]);
  return "#" + p.toString();
}

function go(change, replace = false) {
  const to = fragment(change);
  if (to === location.hash || (to === "#" && !location.hash)) return;
  if (replace) {
    history.replaceState(null, "", to);
    route();
  } else location.hash = to;
}

// route follows the address.
function route() {
  const p = new URLSearchParams(location.hash.slice(1));
  const wanted = Object.fromEntries(names.map((n) => [n, p.get(n) || ""]));
  const changed = names.some((n) => wanted[n] !== filter[n]);
  filter = wanted;
  for (const n of names) if ($(n).value !== filter[n] && !(n === "q" && document.activeElement === $("q"))) $(n).value = filter[n];
  $("clear").hidden = !filtered();
  linkDownloads();
  if (changed) {
    showSummary();
    load();
  }
  open(p.get("vote") || "");
}

function linkDownloads() {
  $("get-json").href = "/api/votes.json" + query();
  $("get-csv").href = "/api/votes.csv" + query();
  const what = filtered() ? "these votes" : "all votes";
  $("get-json").title = `Download ${what} as JSON`;
  $("get-csv").title = `Download ${what} as CSV`;
  $("get-file").title = "Download the whole fallback file";
}

for (const id of ["get-json", "get-csv", "get-file"]) {
  $(id).addEventListener("click", (e) => {
    if (!token()) return; // a plain link will do
    e.preventDefault();
    download($(id).getAttribute("href"), $(id).getAttribute("download") || "feedback").catch((error) => say(error.message));
  });
}

function say(text) {
  $("live").textContent = text;
  $("count").textContent = text;
}

// ---- the list

async function load(quiet = false) {
  loading?.abort();
  const mine = (loading = new AbortController());
  if (!quiet) $("votes").setAttribute("aria-busy", "true");
  try {
    const found = [];
    let after = null, scanned = 0, answer;
    // A rare word takes several requests, each of which is short.
    do {
      answer = await get("/api/votes" + query({ limit: pageSize, ...(after === null ? {} : { after }) }), mine.signal);
      found.push(...answer.rows);
      scanned += answer.scanned;
      after = answer.next;
      if (found.length < pageSize && after !== null && !quiet) {
        showRows(found, after);
        $("count").textContent = `${count(found.length)} found, ${count(scanned)} of ${count(answer.total)} searched …`;
      }
    } while (found.length < pageSize && after !== null);
    waiting = 0;
    grown = false;
    showRows(found, after);
    showCount(answer.total);
  } catch (error) {
    if (error.name !== "AbortError") failed(error);
  } finally {
    if (loading === mine) {
      loading = null;
      $("votes").removeAttribute("aria-busy");
    }
  }
}

async function loadMore() {
  if (loading || next === null) return;
  const mine = (loading = new AbortController());
  $("more").disabled = true;
  try {
    const before = rows.length;
    let answer;
    do {
      answer = await get("/api/votes" + query({ limit: pageSize, after: next }), mine.signal);
      grown = true;
      showRows(merge(rows, answer.rows), answer.next);
    } while (rows.length < before + pageSize && next !== null);
    showCount(answer.total);
    $("votes").children[before]?.firstElementChild.focus({ preventScroll: true });
  } catch (error) {
    if (error.name !== "AbortError") failed(error);
  } finally {
    if (loading === mine) loading = null;
    $("more").disabled = false;
  }
}

function merge(some, others) {
  const known = new Set(some.map((r) => r.key));
  return [...some, ...others.filter((r) => !known.has(r.key))];
}

function failed(error) {
  if (error instanceof Failure) {
    $("empty").textContent = error.message;
    $("empty").hidden = false;
  }
}

function showCount(total) {
  const n = count(rows.length) + (next === null ? "" : "+");
  $("count").textContent = filtered() ? `${n} of ${count(total)} votes` : `${count(total)} votes`;
}

// items keeps the list's elements, so that a vote that stays the same stays where the reader's finger is.
let items = new Map();

function showRows(list, more, fresh = new Set()) {
  rows = list;
  next = more;
  const had = items;
  items = new Map();
  const marks = words().join(" ");
  for (const r of rows) {
    const text = JSON.stringify(r.row) + "\n" + marks;
    const old = had.get(r.key);
    const known = old && old.text === text;
    const node = known ? old.node : item(r, fresh.has(r.key));
    if (old && !known && old.node.contains(document.activeElement)) queueMicrotask(() => node.firstElementChild.focus());
    node.firstElementChild.setAttribute("href", fragment({ vote: r.key }));
    items.set(r.key, { node, text });
  }
  const nodes = [...items.values()].map((i) => i.node);
  const ol = $("votes");
  for (const child of [...ol.children]) if (!nodes.includes(child)) child.remove();
  nodes.forEach((node, i) => {
    if (ol.children[i] !== node) ol.insertBefore(node, ol.children[i] || null);
  });
  $("more").hidden = next === null || rows.length === 0;
  $("empty").hidden = rows.length > 0;
  $("empty").textContent = filtered() ? "No vote fits the filter." : "No votes yet. They appear here as soon as they are in the table.";
  $("fresh").hidden = waiting === 0;
}

function item(vote, fresh) {
  const name = (role) => columns.find((c) => c.role === role)?.name;
  const value = (role) => (name(role) === undefined ? null : vote.row[name(role)]);
  const meta = el("div", { class: "meta" }, el("span", {}, "#" + vote.key));
  if (value("time")) meta.append(el("time", {}, moment(value("time"))));
  meta.append(...tagsOf(value("tags")).map(chip));
  const link = el("a", { href: "#" }, meta);
  const text = (v) => marked(excerpt(String(v), words()), words());
  if (value("question")) link.append(el("div", { class: "main-line" }, text(value("question"))));
  if (value("answer")) link.append(el("div", { class: "second-line" }, text(unmarked(String(value("answer"))))));
  if (value("comment")) link.append(el("div", { class: "said" }, text(value("comment"))));
  if (link.children.length === 1) {
    const line = columns.filter((c) => !c.role && !c.key && vote.row[c.name] !== null).slice(0, 5)
      .map((c) => `${c.name}: ${typeof vote.row[c.name] === "object" ? JSON.stringify(vote.row[c.name]) : vote.row[c.name]}`).join(" · ");
    link.append(el("div", { class: "second-line" }, text(line || "no texts")));
  }
  return el("li", { class: fresh ? "new" : null, "data-key": vote.key }, link);
}

$("more").addEventListener("click", loadMore);
$("fresh").addEventListener("click", () => { load(); });

// ---- one vote

async function open(key) {
  const dialog = $("vote");
  opened = key;
  if (!summary && key) return; // begin opens it
  if (!key) {
    if (dialog.open) dialog.close();
    return;
  }
  let vote = rows.find((r) => r.key === key);
  if (!vote) {
    try {
      vote = await get("/api/votes/" + encodeURIComponent(key));
    } catch (error) {
      if (error instanceof Failure) say(error.message);
      if (opened === key) go({ vote: "" }, true);
      return;
    }
  }
  if (opened !== key) return;
  show(vote, columns);
  const at = rows.findIndex((r) => r.key === key);
  $("newer").disabled = at <= 0;
  $("older").disabled = at < 0 || at === rows.length - 1;
  if (!dialog.open) {
    dialog.showModal();
    $("vote-body").focus();
  }
}

function step(by) {
  const at = rows.findIndex((r) => r.key === opened);
  if (at >= 0 && rows[at + by]) go({ vote: rows[at + by].key }, true);
}

$("newer").addEventListener("click", () => step(-1));
$("older").addEventListener("click", () => step(1));
$("close").addEventListener("click", () => $("vote").close());
$("vote").addEventListener("click", (e) => {
  if (e.target === $("vote") && e.offsetX < 0) $("vote").close(); // the backdrop
});
$("vote").addEventListener("close", () => {
  const key = opened;
  if (key) go({ vote: "" });
  items.get(key)?.node.firstElementChild.focus();
});

// ---- the filter

let typing = 0;
$("q").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => go({ q: $("q").value.trim() }, true), 250);
});
for (const n of ["tag", "from", "to"]) $(n).addEventListener("change", () => go({ [n]: $(n).value }));
$("filter").addEventListener("submit", (e) => {
  e.preventDefault();
  clearTimeout(typing);
  go({ q: $("q").value.trim() }, true);
});
$("clear").addEventListener("click", () => {
  $("q").value = "";
  go({ q: "", tag: "", from: "", to: "" });
  $("q").focus();
});

// ---- the overview

function showSummary() {
  if (!summary) return;
  const day = filter.from && filter.from === filter.to ? filter.from : "";
  showDays(summary.days, day, (d) => go({ from: d, to: d }));
  showTags(summary.tags, summary.more_tags, summary.untagged, filter.tag, (t) => go({ tag: t }));
}

let summaryTimer = 0;

async function loadSummary() {
  clearTimeout(summaryTimer);
  summaryTimer = 0;
  try {
    summary = await get("/api/summary");
  } catch (error) {
    failed(error);
    return;
  }
  columns = summary.columns;
  document.title = summary.title;
  $("title").textContent = summary.title;
  $("from-field").hidden = $("to-field").hidden = !columns.some((c) => c.role === "time");
  setStatus(summary.status);
  showSummary();
  if (!summary.current) laterSummary();
}

function laterSummary() {
  summaryTimer ||= setTimeout(loadSummary, 3000);
}

// ---- what happens meanwhile

let refreshTimer = 0;

// refresh loads the first page again, for edits and deletes; a reader who has gone further down is left alone.
function laterRefresh() {
  refreshTimer ||= setTimeout(() => {
    refreshTimer = 0;
    if (loading) laterRefresh();
    else if (!grown) load(true);
  }, 3000);
}

function arrived(event) {
  laterSummary();
  if (event.reshaped) {
    begin();
    return;
  }
  if (filtered()) {
    if (event.rows.length) {
      waiting += event.rows.length;
      $("fresh").textContent = `${count(waiting)}${event.more ? "+" : ""} new ${waiting === 1 ? "vote" : "votes"}: search again`;
      $("fresh").hidden = false;
    }
    return;
  }
  laterRefresh();
  if (loading && !rows.length) return; // the list that is on its way has them
  if (event.rows.length) {
    const list = merge(event.rows, rows);
    const cut = !grown && list.length > kept;
    showRows(cut ? list.slice(0, kept) : list, cut ? list[kept - 1].key : next, new Set(event.rows.map((r) => r.key)));
    $("live").textContent = `${count(event.rows.length)} new ${event.rows.length === 1 ? "vote" : "votes"}`;
  }
  showCount(event.total);
}

async function begin() {
  await loadSummary();
  await load(rows.length > 0);
  if (opened && !$("vote").open) open(opened);
}

onTokenNeeded((error) => new Promise((resolve) => {
  const dialog = $("token");
  $("token-error").textContent = error;
  $("token-error").hidden = !error;
  $("token-input").value = "";
  dialog.addEventListener("cancel", (e) => e.preventDefault());
  $("token-form").onsubmit = () => {
    keepToken($("token-input").value.trim());
    resolve();
  };
  if (!dialog.open) dialog.showModal();
}));

addEventListener("hashchange", route);
route();
setInterval(showStatus, 1000);
events("/api/events", (name, data) => {
  if (name === "status") {
    const empty = !summary;
    setStatus(data);
    if (empty && (data.rows || data.state === "following")) begin();
  } else if (name === "votes") arrived(data);
}, (connected, failure) => {
  setReachable(connected || failure !== null, failure?.message);
  if (connected || failure) begin(); // without the stream, the page is loaded anew with each attempt
});
