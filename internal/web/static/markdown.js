// Elements for the tree that the server makes of a text in Markdown (internal/markdown). No text is used as markup.

import { el, safeLink } from "./dom.js";

const allowed = new Set(["p", "h3", "h4", "h5", "h6", "hr", "br", "pre", "code", "blockquote", "ul", "ol", "li", "em", "strong", "del",
  "table", "thead", "tr", "th", "td"]);

// markdown returns an element that contains nodes: {text} or {tag, href, start, children}.
export const markdown = (nodes) => el("div", { class: "markdown" }, ...nodes.map(build));

function build(node) {
  if (!node.tag) return node.text ?? "";
  const children = (node.children ?? []).map(build);
  if (node.tag === "a") return safeLink(node.href, ...children);
  if (!allowed.has(node.tag)) return el("span", {}, ...children);
  const element = el(node.tag, { start: node.start ? String(node.start) : null }, ...children);
  return node.tag === "table" ? el("div", { class: "table" }, element) : element; // the box scrolls if the table is wider
}
