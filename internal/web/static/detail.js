// One vote in full.

import { $, el } from "./dom.js";
import { markdown } from "./markdown.js";
import { chip, moment, sources, tagsOf, tree } from "./value.js";

const part = (title, kind, ...content) => el("section", { class: "part " + kind }, el("h3", {}, title), ...content);
const none = () => el("p", { class: "null" }, "none");
const has = (v) => v !== null && v !== undefined && v !== "";

// show fills the dialog. vote is {key, row}; columns are the summary's.
export function show(vote, columns) {
  const named = (role) => columns.find((c) => c.role === role);
  const when = named("time");
  $("vote-title").textContent = columns.length ? `${columns.filter((c) => c.key).map((c) => c.name).join(", ")} ${vote.key}` : vote.key;
  $("vote-when").textContent = when ? moment(vote.row[when.name], true) : "";

  const parts = [];
  for (const role of ["question", "answer", "comment", "tags", "citations"]) {
    for (const c of columns.filter((c) => c.role === role)) parts.push(section(role, c, vote.row[c.name]));
  }
  const rest = columns.filter((c) => !c.role);
  for (const c of rest.filter((c) => nests(vote.row[c.name]))) parts.push(part(title(c), "", tree(vote.row[c.name])));
  const plain = rest.filter((c) => !nests(vote.row[c.name]));
  if (plain.length) {
    parts.push(part("Other columns", "", el("dl", { class: "others" }, ...plain.flatMap((c) => [
      el("dt", {}, c.name), el("dd", {}, value(c, vote.row[c.name]))]))));
  }
  $("vote-body").replaceChildren(...parts);
  $("vote-body").scrollTop = 0;
}

const nests = (v) => v !== null && typeof v === "object" && v.constructor?.name !== "Exact";

const title = (c) => {
  const words = c.name.replace(/_/g, " ").replace(/\bjson\b/i, "").trim();
  return words ? words[0].toUpperCase() + words.slice(1) : c.name;
};

function section(role, c, v) {
  if (!has(v)) return part(title(c), role, none());
  switch (role) {
    case "answer": return part(title(c), role, markdown(String(v)));
    case "tags": {
      const tags = tagsOf(v);
      return part(title(c), role, tags.length ? el("p", { class: "tags-line" }, ...tags.map(chip)) : none());
    }
    case "citations": return part(title(c), role, sources(v) || none());
    default: return part(title(c), role, el("div", { class: "plain" }, String(v)));
  }
}

function value(c, v) {
  if (v === null || v === undefined) return el("span", { class: "null" }, "null");
  if (v === "") return el("span", { class: "null" }, "empty");
  if (/^timestamp/.test(c.type)) return moment(v, true);
  return String(v);
}
