// The feedback page. This module connects the address, the filter, the list, the open vote and the events. It is the only
// module that acts when it is imported. The filter and the key of the open vote are in the address, so a link or the browser's
// history leads back to them.

import { fragmentOf, isFiltered, parseFragment, queryOf, sameFilter, tokenOf } from "./address.js";
import { APIError, download, followEvents, get, getToken, onTokenNeeded, setToken } from "./api.js";
import { $ } from "./dom.js";
import { excerpt } from "./format.js";
import { moveBetweenDays, showDays, showTags } from "./overview.js";
import { setReachable, setStatus, showStatus } from "./status.js";
import { debounced, throttled } from "./timer.js";
import { showQuestions, showTagWeeks } from "./trends.js";
import { showVote } from "./vote.js";
import { showLoadError, VoteList } from "./votelist.js";

const searchDelay = 250;   // milliseconds after the last key
const summaryDelay = 3000; // milliseconds

const list = new VoteList();
const page = {
  summary: null, // the last answer of /api/summary
  openKey: "",   // key of the open vote, or ""
};

// ---- The address

// navigate changes the given parts of the address: {q, tag, question, from, to, vote}.
function navigate({ vote = page.openKey, ...filter }, replace = false) {
  const fragment = fragmentOf({ ...list.filter, ...filter }, vote);
  if (fragment === location.hash || (fragment === "#" && !location.hash)) return;
  if (replace) {
    history.replaceState(null, "", fragment);
    applyAddress();
  } else location.hash = fragment;
}

function applyAddress() {
  const { filter, vote } = parseFragment(location.hash);
  const changed = !sameFilter(filter, list.filter);
  list.filter = filter;
  for (const [name, value] of Object.entries(filter)) {
    const typing = name === "q" && document.activeElement === $("q");
    if ($(name).value !== value && !typing) $(name).value = value;
  }
  $("clear").hidden = !isFiltered(filter);
  showQuestionFilter();
  linkDownloads();
  if (changed) {
    showOverview();
    list.load();
  }
  openVote(vote);
}

addEventListener("hashchange", applyAddress);

// ---- The filter

const search = debounced(() => navigate({ q: $("q").value.trim() }, true), searchDelay);

$("q").addEventListener("input", search);
for (const name of ["tag", "from", "to"]) $(name).addEventListener("change", () => navigate({ [name]: $(name).value }));
$("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  search.cancel();
  navigate({ q: $("q").value.trim() }, true);
});
$("clear").addEventListener("click", () => {
  $("q").value = "";
  navigate({ q: "", tag: "", question: "", from: "", to: "" });
  $("q").focus();
});
$("question-remove").addEventListener("click", () => navigate({ question: "" }));

// showQuestionFilter shows the text of the question in the filter. The filter itself contains only the question's ID.
function showQuestionFilter() {
  const id = list.filter.question;
  $("question-field").hidden = !id;
  const question = page.summary?.questions?.find((question) => question.id === id);
  $("question-text").textContent = question ? excerpt(question.text, [], 60) : "One question";
}

// ---- The list and the downloads

$("more").addEventListener("click", () => list.loadMore());
$("new-votes").addEventListener("click", () => list.load());

function linkDownloads() {
  const which = isFiltered(list.filter) ? "the matching votes" : "all votes";
  for (const [format, name] of [["json", "JSON"], ["jsonl", "JSON lines, one vote a line"], ["csv", "CSV"]]) {
    $("get-" + format).href = `api/votes.${format}` + queryOf(list.filter);
    $("get-" + format).title = `Download ${which} as ${name}`;
  }
  $("get-file").title = "Download the fallback file";
}

for (const id of ["get-json", "get-jsonl", "get-csv", "get-file"]) {
  $(id).addEventListener("click", (event) => {
    if (!getToken()) return; // without a token, the link itself is enough
    event.preventDefault();
    download($(id).getAttribute("href"), $(id).getAttribute("download")).catch((error) => announce(error.message));
  });
}

function announce(text) {
  $("live").textContent = text;
  $("count").textContent = text;
}

// ---- The open vote

// openVote shows the vote with this key. If the key is "", it closes the dialog.
async function openVote(key) {
  const dialog = $("vote");
  page.openKey = key;
  if (!key) {
    if (dialog.open) dialog.close();
    return;
  }
  if (!page.summary) return; // reload opens the vote once the columns are known
  let vote = list.find(key);
  if (!vote) {
    try {
      vote = await get("api/votes/" + encodeURIComponent(key));
    } catch (error) {
      if (error instanceof APIError) announce(error.message);
      if (page.openKey === key) navigate({ vote: "" }, true);
      return;
    }
  }
  if (page.openKey !== key) return; // the reader has already opened another vote
  showVote(vote, page.summary.columns);
  const { newer, older } = list.neighborsOf(key);
  $("newer").disabled = !newer;
  $("older").disabled = !older;
  if (!dialog.open) {
    dialog.showModal();
    $("vote-body").focus();
  }
}

function openNeighbor(vote) {
  if (vote) navigate({ vote: vote.key }, true);
}

$("newer").addEventListener("click", () => openNeighbor(list.neighborsOf(page.openKey).newer));
$("older").addEventListener("click", () => openNeighbor(list.neighborsOf(page.openKey).older));
$("close").addEventListener("click", () => $("vote").close());
$("vote").addEventListener("click", (event) => {
  if (event.target === $("vote") && event.offsetX < 0) $("vote").close(); // a click on the backdrop
});
$("vote").addEventListener("close", () => {
  const key = page.openKey;
  if (!key) return;
  navigate({ vote: "" });
  list.focus(key);
});

// ---- The overview

function showOverview() {
  if (!page.summary) return;
  const { days, tags, more_tags: more, untagged, tag_weeks: tagWeeks, questions } = page.summary;
  const { from, to, tag, question } = list.filter;
  showDays(days, from === to ? from : "", (day) => navigate({ from: day, to: day }));
  showTags({ tags, more, untagged }, tag, (chosen) => navigate({ tag: chosen }));
  showTagWeeks(tagWeeks, days, navigate);
  showQuestions(questions, days, question, (chosen) => navigate({ question: chosen }));
  showQuestionFilter();
}

$("days").addEventListener("keydown", moveBetweenDays);

const loadSummaryLater = throttled(loadSummary, summaryDelay);

async function loadSummary() {
  loadSummaryLater.cancel();
  let summary;
  try {
    summary = await get("api/summary");
  } catch (error) {
    showLoadError(error);
    return;
  }
  page.summary = summary;
  list.columns = summary.columns;
  document.title = summary.title;
  $("title").textContent = summary.title;
  $("from-field").hidden = $("to-field").hidden = !summary.columns.some((column) => column.role === "time");
  setStatus(summary.status);
  showOverview();
  if (!summary.current) loadSummaryLater();
}

// ---- The events

async function reload() {
  await loadSummary();
  await list.load(!list.isEmpty);
  if (page.openKey && !$("vote").open) openVote(page.openKey);
}

function handleEvent(name, data) {
  if (name === "status") {
    const first = !page.summary;
    setStatus(data);
    if (first && (data.rows || data.state === "following")) reload();
  } else if (name === "votes") {
    loadSummaryLater();
    if (data.reshaped) reload();
    else list.addArrived(data);
  }
}

function handleConnection(connected, error) {
  setReachable(connected || error !== null, error?.message);
  if (connected || error) reload(); // without the stream, each attempt to connect also reloads the page's data
}

// ---- The token

// The token dialog must not close without a token.
$("token").addEventListener("cancel", (event) => event.preventDefault());

onTokenNeeded((reason) => new Promise((resolve) => {
  $("token-error").textContent = reason;
  $("token-error").hidden = !reason;
  $("token-input").value = "";
  $("token-form").onsubmit = () => {
    setToken($("token-input").value.trim());
    resolve();
  };
  if (!$("token").open) $("token").showModal();
}));

// ---- The start

// A token in the address moves to the session storage. Nobody can then read it in the address bar, or send it with a link.
if (tokenOf(location.hash)) {
  setToken(tokenOf(location.hash));
  history.replaceState(null, "", location.pathname + location.search);
}
applyAddress();
setInterval(showStatus, 1000);
followEvents("api/events", handleEvent, handleConnection);
