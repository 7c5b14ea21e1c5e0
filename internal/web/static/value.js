// Elements for values: scalars, trees of JSON, tags, and texts in which the words of the search are marked.

import { el, safeLink } from "./dom.js";
import { formatCount, formatQuantity, isPositive, matchesOf } from "./format.js";
import { isNested } from "./json.js";

export const tagChip = (tag) => el("span", { class: isPositive(tag) ? "tag good" : "tag", dir: "auto" }, tag.length > 100 ? tag.slice(0, 100) + " …" : tag);

// highlight returns a text as a fragment in which the words of the search are marked.
export function highlight(text, words) {
  const fragment = document.createDocumentFragment();
  let end = 0;
  for (const [from, to] of matchesOf(text, words)) {
    fragment.append(text.slice(end, from), el("mark", {}, text.slice(from, to)));
    end = to;
  }
  fragment.append(text.slice(end));
  return fragment;
}

export function scalar(value) {
  if (value === null || value === undefined) return el("span", { class: "null" }, "null");
  if (typeof value !== "string") return el("span", { class: typeof value === "boolean" ? "bool" : "num" }, String(value));
  return el("span", { class: "string" }, /^https?:\/\/\S+$/.test(value) ? safeLink(value, value) : value);
}

// maxEntries is the number of entries of one level that are shown at first.
export const maxEntries = 500;

// tree returns a nested list for a JSON value. The inner levels open on demand.
export function tree(value) {
  if (!isNested(value)) return scalar(value);
  return el("ul", { class: "tree" }, ...branches(value, 0));
}

function branches(value, depth) {
  const entries = Object.entries(value);
  const make = ([key, child]) => branch(Array.isArray(value) ? String(Number(key) + 1) : key, child, depth);
  const nodes = entries.slice(0, maxEntries).map(make);
  if (entries.length > maxEntries) {
    const more = el("li", {}, el("button", {
      type: "button", class: "quiet", onclick: () => more.replaceWith(...entries.slice(maxEntries).map(make)),
    }, `Show ${formatCount(entries.length - maxEntries)} more`));
    nodes.push(more);
  }
  return nodes;
}

function branch(key, value, depth) {
  const label = el("span", { class: "key" }, key + ": ");
  if (!isNested(value)) return el("li", {}, label, scalar(value));
  const size = Object.keys(value).length;
  let note = "";
  if (Array.isArray(value)) note = formatQuantity(size, "item");
  else if (size === 0) note = "empty";
  const details = el("details", {}, el("summary", {}, label, note ? el("span", { class: "key" }, note) : null));
  const fill = () => {
    if (details.open && details.children.length === 1) details.append(el("ul", {}, ...branches(value, depth + 1)));
  };
  details.addEventListener("toggle", fill);
  details.open = depth < 2 && size <= 50;
  fill();
  return el("li", {}, details);
}
