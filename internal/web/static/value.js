// How values are shown: texts, tags, trees of JSON, citations.

import { el, link } from "./dom.js";
import { Exact } from "./api.js";

export const positive = (tag) => tag.slice(0, 10).toLowerCase() === "looks good";

export const chip = (tag) => el("span", { class: positive(tag) ? "tag good" : "tag" }, tag);

const isObject = (v) => v !== null && typeof v === "object" && !(v instanceof Exact);

// tagsOf is a row's tags as a flat array of strings.
export function tagsOf(value) {
  if (value === null || value === undefined) return [];
  return (Array.isArray(value) ? value.flat(Infinity) : [value]).filter((t) => t !== null).map(String);
}

// moment is a timestamp without its T, to the minute or in full. It stays in the table's own time zone.
export function moment(value, full = false) {
  if (typeof value !== "string") return "";
  const m = /^(\d{4,}-\d\d-\d\d)(?:T(\d\d:\d\d)(:\d\d(?:\.\d+)?)?(.*))?$/.exec(value);
  if (!m) return value;
  const zone = m[4] === "+00:00" ? " UTC" : m[4] || "";
  return m[1] + (m[2] ? " " + m[2] + (full ? m[3] || "" : "") + zone : "");
}

const number = new Intl.NumberFormat("en");
export const count = (n) => number.format(n);

export function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  for (; n >= 1000 && i < units.length - 1; i++) n /= 1000;
  return (i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)) + " " + units[i];
}

export function duration(seconds) {
  if (seconds < 1) return seconds <= 0.05 ? "none" : Math.round(seconds * 1000) + " ms";
  if (seconds < 90) return Math.round(seconds) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  if (seconds < 129600) return Math.round(seconds / 3600) + " h";
  return Math.round(seconds / 86400) + " days";
}

// tree shows JSON as it nests; the inner levels open on demand.
export function tree(value) {
  if (!isObject(value)) return scalar(value);
  return el("ul", { class: "tree" }, ...branches(value, 0));
}

const widest = 500; // entries of one level; more come on demand

function branches(value, depth) {
  const entries = Object.entries(value);
  const make = ([key, v]) => branch(Array.isArray(value) ? String(Number(key) + 1) : key, v, depth);
  const nodes = entries.slice(0, widest).map(make);
  if (entries.length > widest) {
    const rest = el("li", {}, el("button", { type: "button", class: "quiet", onclick: () => rest.replaceWith(...entries.slice(widest).map(make)) },
      `Show ${count(entries.length - widest)} more`));
    nodes.push(rest);
  }
  return nodes;
}

function branch(key, value, depth) {
  const label = el("span", { class: "k" }, key + ": ");
  if (!isObject(value)) return el("li", {}, label, scalar(value));
  const n = Object.keys(value).length;
  const size = Array.isArray(value) ? `${count(n)} ${n === 1 ? "item" : "items"}` : n === 0 ? "empty" : "";
  const details = el("details", {}, el("summary", {}, label, size ? el("span", { class: "k" }, size) : null));
  const fill = () => {
    if (details.open && details.children.length === 1) details.append(el("ul", {}, ...branches(value, depth + 1)));
  };
  details.addEventListener("toggle", fill);
  details.open = depth < 2 && n <= 50;
  fill();
  return el("li", {}, details);
}

function scalar(value) {
  if (value === null || value === undefined) return el("span", { class: "null" }, "null");
  if (typeof value === "string") return el("span", { class: "s" }, /^https?:\/\/\S+$/.test(value) ? link(value, value) : value);
  return el("span", { class: typeof value === "boolean" ? "bool" : "num" }, String(value));
}

// sources shows citations as a list of links: strings, or objects with an address and a name by any of the usual names.
export function sources(value) {
  const list = Array.isArray(value) ? value : isObject(value) ? Object.values(value).find(Array.isArray) || [value] : [value];
  if (list.length === 0) return null;
  return el("ol", { class: "cites" }, ...list.slice(0, widest).map((c) => el("li", {}, source(c))));
}

const pick = (o, names) => {
  for (const name of names) {
    const key = Object.keys(o).find((k) => k.toLowerCase() === name);
    if (key !== undefined && typeof o[key] === "string" && o[key] !== "") return key;
  }
  return null;
};

function source(c) {
  if (!isObject(c)) return scalar(c);
  if (Array.isArray(c)) return tree(c);
  const at = pick(c, ["url", "uri", "href", "link", "source_url", "address", "source"]);
  const named = pick(c, ["title", "name", "document", "filename", "file", "label", "text", "id"]);
  if (at === null && named === null) return tree(c);
  const span = el("span", {}, at === null ? c[named] : link(c[at], named === null ? c[at] : c[named]));
  const rest = Object.fromEntries(Object.entries(c).filter(([k]) => k !== at && k !== named));
  const short = Object.entries(rest).filter(([, v]) => !isObject(v) && v !== null);
  if (short.length > 0) span.append(el("div", { class: "hint" }, short.map(([k, v]) => `${k}: ${v}`).join(" · ")));
  const deep = Object.fromEntries(Object.entries(rest).filter(([, v]) => isObject(v)));
  if (Object.keys(deep).length > 0) span.append(tree(deep));
  return span;
}

// marked is a text with the words of the search marked.
export function marked(text, words) {
  const span = document.createDocumentFragment();
  const lower = text.toLowerCase();
  const wanted = words.map((w) => w.toLowerCase()).filter(Boolean);
  // Some letters have a lower case of another length; then nothing is marked.
  if (wanted.length === 0 || lower.length !== text.length) {
    span.append(text);
    return span;
  }
  for (let i = 0; i < text.length;) {
    let best = -1, length = 0;
    for (const w of wanted) {
      const at = lower.indexOf(w, i);
      if (at >= 0 && (best < 0 || at < best || at === best && w.length > length)) { best = at; length = w.length; }
    }
    if (best < 0) {
      span.append(text.slice(i));
      break;
    }
    span.append(text.slice(i, best), el("mark", {}, text.slice(best, best + length)));
    i = best + length;
  }
  return span;
}

// unmarked is Markdown without its commonest signs, for a line in a list.
export const unmarked = (text) => text.slice(0, 20_000).replace(/^ {0,3}#{1,6} |^ {0,3}> |^```.*$|\*\*|__|`/gm, "").replace(/(^|\W)\*(\S[^*\n]*)\*/g, "$1$2");

// excerpt is the beginning of a text on one line; where a word of the search is further in, the part around it.
export function excerpt(text, words, length = 300) {
  const flat = text.slice(0, 20_000).replace(/\s+/g, " ").trim();
  if (flat.length <= length) return flat;
  let from = 0;
  const lower = flat.toLowerCase();
  for (const w of words) {
    const at = lower.indexOf(w.toLowerCase());
    if (at >= 0) {
      if (at > 100) from = at - 60;
      break;
    }
  }
  return (from > 0 ? "… " : "") + flat.slice(from, from + length) + (from + length < flat.length ? " …" : "");
}
