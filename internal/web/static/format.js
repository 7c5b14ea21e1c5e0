// Pure functions that format values for people. They do not use the DOM.

import { Exact, isNested } from "./json.js";

const numberFormat = new Intl.NumberFormat("en");

export const formatCount = (n) => numberFormat.format(n);

// formatQuantity returns a count with its noun: "1 vote", "1,204 votes".
export const formatQuantity = (n, noun) => `${formatCount(n)} ${noun}${n === 1 ? "" : "s"}`;

export function formatDuration(seconds) {
  if (seconds <= 0.05) return "none";
  if (seconds < 1) return Math.round(seconds * 1000) + " ms";
  if (seconds < 90) return Math.round(seconds) + " s";
  if (seconds < 90 * 60) return Math.round(seconds / 60) + " min";
  if (seconds < 36 * 3600) return Math.round(seconds / 3600) + " h";
  return Math.round(seconds / 86400) + " days";
}

// timestampOf returns the timestamp in UTC for a number that counts the time since 1970. The size of the number shows whether
// it counts seconds, milliseconds, microseconds or nanoseconds. The server uses the same limits.
function timestampOf(number) {
  const unit = [[1e11, 1000], [1e14, 1], [1e17, 1e-3], [Infinity, 1e-6]].find(([limit]) => Math.abs(number) < limit)?.[1];
  const date = new Date(Math.round(number * unit));
  return Number.isNaN(date.getTime()) ? "" : date.toISOString().replace("Z", "+00:00");
}

// formatTimestamp returns a timestamp without its T, to the minute or in full. The timestamp stays in the table's own time
// zone. A number counts the time since 1970. A text that is no timestamp, such as infinity, is returned unchanged.
export function formatTimestamp(value, full = false) {
  if (typeof value === "number" || value instanceof Exact) value = timestampOf(Number(String(value)));
  if (typeof value !== "string") return "";
  const parts = /^(\d{4,}-\d\d-\d\d)(?:T(\d\d:\d\d)(:\d\d(?:\.\d+)?)?(.*))?$/.exec(value);
  if (!parts) return value;
  const [, day, minutes, seconds = "", offset = ""] = parts;
  if (!minutes) return day;
  return `${day} ${minutes}${full ? seconds : ""}${offset === "+00:00" ? " UTC" : offset}`;
}

// isPositive reports whether a tag stands for a positive vote. The server counts by the same rule.
export const isPositive = (tag) => tag.slice(0, 10).toLowerCase() === "looks good";

// weeksOf returns the votes per week, as {first, last, positive, tagged}. A week has seven days, and the last week ends with
// the last day. Votes without a tag are not counted. days are the days of /api/summary, the oldest first.
export function weeksOf(days) {
  const weeks = [];
  for (let end = days.length; end > 0; end -= 7) {
    const week = days.slice(Math.max(0, end - 7), end);
    const positive = week.reduce((sum, day) => sum + day.positive, 0);
    weeks.unshift({ first: week[0].day, last: week.at(-1).day, positive, tagged: positive + week.reduce((sum, day) => sum + day.negative, 0) });
  }
  return weeks;
}

// tagsOf returns a row's tags as a flat array of strings. An array in Postgres has at most six dimensions.
export function tagsOf(value) {
  if (value === null || value === undefined) return [];
  const tags = Array.isArray(value) ? value.flat(6) : [value];
  return tags.filter((tag) => tag !== null).map((tag) => (isNested(tag) ? JSON.stringify(tag) : String(tag)));
}

// titleOf returns a column's name as a heading: "bot_response" is "Bot response".
export function titleOf(name) {
  const words = name.replace(/_/g, " ").replace(/\bjson\b/i, "").trim();
  return words ? words[0].toUpperCase() + words.slice(1) : name;
}

// The list shows little of a text. Processing the rest on every keystroke would be a waste.
const maxPreview = 20_000;

// excerpt returns the beginning of a text on one line. If a word of the search comes later, it returns the part around the
// word.
export function excerpt(text, words, length = 300) {
  const line = text.slice(0, maxPreview).replace(/\s+/g, " ").trim();
  if (line.length <= length) return line;
  const lower = line.toLowerCase();
  const found = words.map((word) => lower.indexOf(word.toLowerCase())).find((at) => at >= 0) ?? 0;
  const from = found > 100 ? found - 60 : 0;
  return (from > 0 ? "… " : "") + line.slice(from, from + length) + (from + length < line.length ? " …" : "");
}

// withoutMarkdown returns a text without the most common Markdown characters.
export const withoutMarkdown = (text) => text.slice(0, maxPreview)
  .replace(/^ {0,3}#{1,6} |^ {0,3}> |^```.*$|\*\*|__|`/gm, "")
  .replace(/(^|\W)\*(\S[^*\n]*)\*/g, "$1$2");

// matchesOf returns the places of the search's words in a text, as pairs of offsets in ascending order. If two words match at
// the same place, it returns the longer match.
export function matchesOf(text, words) {
  const lower = text.toLowerCase();
  if (lower.length !== text.length) return []; // a letter whose lower case has another length would shift the offsets
  const wanted = words.map((word) => word.toLowerCase()).filter(Boolean);
  const matches = [];
  for (let from = 0; ;) {
    let start = -1, length = 0;
    for (const word of wanted) {
      const at = lower.indexOf(word, from);
      if (at < 0) continue;
      if (start < 0 || at < start || at === start && word.length > length) {
        start = at;
        length = word.length;
      }
    }
    if (start < 0) return matches;
    matches.push([start, start + length]);
    from = start + length;
  }
}
