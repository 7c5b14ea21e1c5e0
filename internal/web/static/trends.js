// The overview's trends: tags per week, and the questions with negative votes.

import { $, el } from "./dom.js";
import { excerpt, formatCount, formatQuantity } from "./format.js";

// showTagWeeks draws a row of bars for each tag, with one bar per week. Without tags, it hides the table. days are the days of
// /api/summary. choose({tag, from, to}) shows the votes with a tag in a week.
export function showTagWeeks(tags, days, choose) {
  const hidden = !tags?.length || !days?.length;
  $("tag-weeks-card").hidden = hidden;
  if (hidden) return;
  const weeks = tags[0].weeks.map((_, i) => ({ from: days[7 * i].day, to: days[7 * i + 6].day }));
  const body = $("tag-weeks").tBodies[0];
  const focused = body.contains(document.activeElement) ? document.activeElement.dataset.tag : null;
  body.replaceChildren(...tags.map((tag) => tagRow(tag, weeks, choose)));
  for (const [id, day] of [["first", weeks[0].from], ["last", weeks.at(-1).to], ["before", weeks.at(-2).to], ["newest", weeks.at(-1).to]]) {
    $("tag-weeks-" + id).textContent = day.slice("2026-".length);
  }
  if (focused) [...body.querySelectorAll("button")].find((button) => button.dataset.tag === focused)?.focus();
}

function tagRow({ tag, positive, weeks: counts }, weeks, choose) {
  const highest = Math.max(1, ...counts);
  const [before, last] = counts.slice(-2);
  const bars = counts.map((count, i) => {
    const bar = el("span", { class: "week", title: `${weeks[i].from} to ${weeks[i].to}: ${formatQuantity(count, "vote")}` },
      count > 0 ? el("span", { class: positive ? "seg good" : "seg bad" }) : null);
    if (count > 0) bar.firstChild.style.height = (100 * count) / highest + "%";
    return bar;
  });
  const label = `Votes per week from ${weeks[0].from} to ${weeks.at(-1).to}: ${counts.map(formatCount).join("; ")}`;
  return el("tr", {}, el("th", { scope: "row", title: tag, dir: "auto" }, excerpt(tag, [], 60)),
    el("td", {}, el("div", { class: "week-bars", role: "img", "aria-label": label }, ...bars)),
    el("td", { class: "number" }, formatCount(before)),
    el("td", { class: "number" }, last === 0 ? "0" : el("button", {
      type: "button", class: "link", "data-tag": tag, "aria-label": `${formatQuantity(last, "vote")}: show`,
      onclick: () => choose({ tag, ...weeks.at(-1) }),
    }, formatCount(last))));
}

const shortList = 5; // number of questions shown at first
let showsAll = false;

// showQuestions lists the questions with negative votes, the worst first. Without questions, it hides the list. chosen is the
// ID of the question in the filter, or "". choose(id) changes the filter. days are the days of /api/summary.
export function showQuestions(questions, days, chosen, choose) {
  $("questions-card").hidden = !questions;
  if (!questions) return;
  $("questions-period").textContent = days ? `${days[0].day} to ${days.at(-1).day}` : "";
  $("questions-none").hidden = questions.length > 0;
  const list = $("questions");
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.question : null;
  const short = questions.filter((question, i) => i < shortList || question.id === chosen);
  const shown = showsAll ? questions : short;
  list.replaceChildren(...shown.map((question) => el("li", {}, questionButton(question, chosen, choose))));
  if (focused) list.querySelector(`[data-question="${CSS.escape(focused)}"]`)?.focus();
  const more = $("questions-more");
  more.hidden = short.length === questions.length;
  more.textContent = showsAll ? "Show fewer" : `Show ${formatCount(questions.length - short.length)} more`;
  more.onclick = () => {
    showsAll = !showsAll;
    showQuestions(questions, days, chosen, choose);
  };
}

function questionButton({ id, text, negative, positive, last }, chosen, choose) {
  const tagged = negative + positive;
  const share = `${formatCount(negative)} of ${formatQuantity(tagged, "tagged vote")} negative (${Math.round((100 * negative) / tagged)}\u00a0%)`;
  const bar = el("span", { class: "share", "aria-hidden": "true" }, el("span", { class: "seg bad" }), el("span", { class: "seg good" }));
  bar.firstChild.style.flexGrow = negative;
  bar.lastChild.style.flexGrow = positive;
  bar.lastChild.hidden = positive === 0;
  return el("button", {
    type: "button", "data-question": id, "aria-pressed": String(id === chosen), onclick: () => choose(id === chosen ? "" : id),
  }, el("span", { class: "question-text", dir: "auto" }, excerpt(text, [])), bar,
  el("span", { class: "hint" }, share + (last ? ` · last on ${last}` : "")));
}
