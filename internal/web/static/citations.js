// A vote's citations as a list of links.

import { el, link } from "./dom.js";
import { isNested } from "./json.js";
import { maxEntries, scalar, tree } from "./value.js";

// citationList takes an array of citations, an object that has one, or a single citation. A citation is a text, or an
// object with an address and a name under any of the usual keys. It returns null if there are none.
export function citationList(value) {
  const list = citationsOf(value);
  if (list.length === 0) return null;
  return el("ol", { class: "citation-list" }, ...list.slice(0, maxEntries).map((entry) => el("li", {}, citation(entry))));
}

function citationsOf(value) {
  if (Array.isArray(value)) return value;
  if (isNested(value)) return Object.values(value).find(Array.isArray) || [value];
  return [value];
}

const addressKeys = ["url", "uri", "href", "link", "source_url", "address", "source"];
const nameKeys = ["title", "name", "document", "filename", "file", "label", "text", "id"];

function citation(value) {
  if (!isNested(value)) return scalar(value);
  if (Array.isArray(value)) return tree(value);
  const addressKey = textKey(value, addressKeys), nameKey = textKey(value, nameKeys);
  if (addressKey === null && nameKey === null) return tree(value);
  const address = value[addressKey], name = value[nameKey];
  const node = el("span", {}, addressKey === null ? name : link(address, nameKey === null ? address : name));

  const others = Object.entries(value).filter(([key]) => key !== addressKey && key !== nameKey);
  const scalars = others.filter(([, v]) => !isNested(v) && v !== null);
  if (scalars.length > 0) node.append(el("div", { class: "hint" }, scalars.map(([key, v]) => `${key}: ${v}`).join(" · ")));
  const nested = others.filter(([, v]) => isNested(v));
  if (nested.length > 0) node.append(tree(Object.fromEntries(nested)));
  return node;
}

// textKey returns the object's key that is the first of the names, in any case, and has a text; null if there is none.
function textKey(object, names) {
  for (const name of names) {
    const key = Object.keys(object).find((k) => k.toLowerCase() === name);
    if (key !== undefined && typeof object[key] === "string" && object[key] !== "") return key;
  }
  return null;
}
