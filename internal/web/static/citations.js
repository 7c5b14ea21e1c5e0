// A vote's citations as a list of links.

import { el, safeLink } from "./dom.js";
import { isNested } from "./json.js";
import { maxEntries, scalar, tree } from "./value.js";

// citationList returns the citations in a value as a list, or null if there are none. The value is an array of citations, an
// object that contains such an array, or a single citation. A citation is a text, or an object with an address and a name under
// any of the usual keys.
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
  const [addressKey, address] = findText(value, addressKeys);
  const [nameKey, name] = findText(value, nameKeys);
  if (address === null && name === null) return tree(value);
  const node = el("span", {}, address === null ? name : safeLink(address, name ?? address));

  const others = Object.entries(value).filter(([key]) => key !== addressKey && key !== nameKey);
  const scalars = others.filter(([, v]) => !isNested(v) && v !== null);
  if (scalars.length > 0) node.append(el("div", { class: "hint" }, scalars.map(([key, v]) => `${key}: ${v}`).join(" · ")));
  const nested = others.filter(([, v]) => isNested(v));
  if (nested.length > 0) node.append(tree(Object.fromEntries(nested)));
  return node;
}

// findText returns the first of the keys, in upper or lower case, under which the object has a text, and this text.
function findText(object, keys) {
  for (const wanted of keys) {
    const key = Object.keys(object).find((k) => k.toLowerCase() === wanted);
    if (key !== undefined && typeof object[key] === "string" && object[key] !== "") return [key, object[key]];
  }
  return [null, null];
}
