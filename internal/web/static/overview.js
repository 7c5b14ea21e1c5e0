// The overview: a chart of the votes per day, and the tags with their counts.

import { $, el } from "./dom.js";
import { formatCount, formatQuantity, isPositive, weeksOf } from "./format.js";

// showDays draws a bar for each day. Without days, it hides the chart. chosen is the day of the filter, or "". choose(day)
// changes the filter.
export function showDays(days, chosen, choose) {
  $("days-card").hidden = !days;
  if (!days) return;
  const bars = $("days");
  const focused = bars.contains(document.activeElement) ? document.activeElement.dataset.day : null;
  const tabStop = chosen || focused || days.at(-1).day;
  const highest = Math.max(1, ...days.map((day) => day.total));
  bars.replaceChildren(...days.map((day) => el("button", {
    type: "button", title: labelOf(day), "aria-label": labelOf(day), "data-day": day.day,
    tabindex: day.day === tabStop ? "0" : "-1",
    "aria-pressed": String(day.day === chosen), onclick: () => choose(day.day === chosen ? "" : day.day),
  }, segment("none", untaggedOf(day), highest), segment("bad", day.negative, highest), segment("good", day.positive, highest))));
  if (!bars.querySelector('[tabindex="0"]')) bars.lastElementChild.tabIndex = 0;
  if (focused) bars.querySelector(`[data-day="${CSS.escape(focused)}"]`)?.focus();

  showWeeks(days);
  $("days-max").textContent = days.some((day) => day.total > 0) ? formatCount(highest) : "no votes";
  $("days-first").textContent = days[0].day;
  $("days-middle").textContent = days[Math.floor(days.length / 2)].day;
  $("days-last").textContent = days.at(-1).day;
}

// showWeeks shows the share of positive votes of each week under its days.
function showWeeks(days) {
  $("weeks").replaceChildren(...weeksOf(days).map(({ first, last, positive, tagged }) => {
    const share = tagged > 0 ? Math.round((100 * positive) / tagged) + " %" : "–";
    const label = `${first} to ${last}: ${tagged > 0 ? `${share} of ${formatQuantity(tagged, "tagged vote")} positive` : "no tagged votes"}`;
    return el("li", { title: label, "aria-label": label }, share);
  }));
}

const untaggedOf = (day) => day.total - day.positive - day.negative;

function labelOf(day) {
  let label = `${day.day}: ${formatQuantity(day.total, "vote")}`;
  if (day.total > 0) label += `, ${formatCount(day.positive)} positive, ${formatCount(day.negative)} negative`;
  if (untaggedOf(day) > 0) label += `, ${formatCount(untaggedOf(day))} untagged`;
  return label;
}

function segment(kind, votes, highest) {
  if (votes === 0) return null;
  const node = el("span", { class: "seg " + kind });
  node.style.height = (100 * votes) / highest + "%";
  return node;
}

// moveBetweenDays lets the arrow keys move the focus within the chart. For the Tab key, the chart is a single stop.
export function moveBetweenDays(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
  if (!step || !event.target.dataset.day) return;
  const bars = [...$("days").children];
  const to = bars[Math.min(bars.length - 1, Math.max(0, bars.indexOf(event.target) + step))];
  event.target.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
  event.preventDefault();
}

// showTags lists the tags in the overview and in the filter, most frequent first. more is the number of different tags that are
// left out. untagged is the number of votes without a tag.
export function showTags({ tags, more, untagged }, chosen, choose) {
  $("tags-card").hidden = !tags;
  $("tag-field").hidden = !tags;
  if (!tags) return;
  const list = $("tags");
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.tag : null;
  const highest = Math.max(1, ...tags.map((tag) => tag.count));
  list.replaceChildren(...tags.map((tag) => el("li", {}, tagButton(tag, highest, chosen, choose))));
  const hints = [];
  if (more) hints.push(formatQuantity(more, "more tag"));
  if (untagged) hints.push(formatQuantity(untagged, "vote") + " without a tag");
  if (tags.length === 0 && hints.length === 0) hints.push("No tags yet.");
  if (hints.length > 0) list.append(el("li", { class: "hint" }, hints.join(" · ")));
  if (focused) [...list.querySelectorAll("button")].find((button) => button.dataset.tag === focused)?.focus();
  showTagChoices(tags.map((tag) => tag.tag), chosen);
}

function tagButton({ tag, count }, highest, chosen, choose) {
  const fill = el("span", { class: isPositive(tag) ? "fill good" : "fill" });
  fill.style.width = (100 * count) / highest + "%";
  return el("button", {
    type: "button", "data-tag": tag, "aria-pressed": String(tag === chosen), onclick: () => choose(tag === chosen ? "" : tag),
  }, fill, el("span", { dir: "auto" }, tag), el("span", { class: "count" }, formatCount(count)));
}

function showTagChoices(tags, chosen) {
  const select = $("tag");
  if (document.activeElement === select) return; // an open list must not change while the reader uses it
  const choices = chosen && !tags.includes(chosen) ? [chosen, ...tags] : tags;
  select.replaceChildren(el("option", { value: "" }, "Any"), ...choices.map((tag) => el("option", { value: tag }, tag)));
  select.value = chosen;
}
