// The dialog that shows one whole vote.

import { get } from "./api.js";
import { citationList } from "./citations.js";
import { $, el } from "./dom.js";
import { formatTimestamp, tagsOf, titleOf } from "./format.js";
import { isNested } from "./json.js";
import { markdown } from "./markdown.js";
import { tagChip, tree } from "./value.js";

// showVote fills the dialog with a vote, {key, row}. columns are the columns of /api/summary. Answers are shown as plain text
// until the server has parsed them.
export function showVote(vote, columns) {
  const keyNames = columns.filter((column) => column.key).map((column) => column.name).join(", ");
  const time = columns.find((column) => column.role === "time");
  $("vote-title").textContent = columns.length ? `${keyNames} ${vote.key}` : vote.key;
  $("vote-time").textContent = time ? formatTimestamp(vote.row[time.name], true) : "";

  const sections = [];
  const add = (name, makeSection) => {
    try {
      sections.push(makeSection());
    } catch (error) {
      sections.push(section(titleOf(name), "", el("p", { class: "error" }, `This value can't be shown here (${error.message}).`)));
    }
  };
  for (const role of ["question", "answer", "comment", "tags", "citations"]) {
    for (const column of columns) {
      if (column.role === role) add(column.name, () => roleSection(column, vote.row[column.name]));
    }
  }
  const others = columns.filter((column) => !column.role);
  for (const column of others) {
    const value = vote.row[column.name];
    if (isNested(value)) add(column.name, () => section(titleOf(column.name), "", tree(value)));
  }
  const plain = others.filter((column) => !isNested(vote.row[column.name]));
  if (plain.length > 0) {
    sections.push(section("Other columns", "", el("dl", { class: "others" }, ...plain.flatMap((column) => [
      el("dt", {}, column.name), el("dd", {}, plainValue(column, vote.row[column.name]))]))));
  }
  $("vote-body").replaceChildren(...sections);
  $("vote-body").scrollTop = 0;
  if ($("vote-body").querySelector("[data-answer]")) showMarkdown(vote.key, sections[0]);
}

// showMarkdown replaces the plain answers, unless the dialog shows another vote by then. part is a section of this vote: it is
// no longer connected if the dialog shows another vote.
async function showMarkdown(key, part) {
  let answers;
  try {
    ({ answers } = await get(`api/votes/${encodeURIComponent(key)}/markdown`));
  } catch {
    return; // the plain text stays
  }
  if (!part.isConnected) return;
  for (const plain of $("vote-body").querySelectorAll("[data-answer]")) {
    if (Object.hasOwn(answers, plain.dataset.answer)) plain.replaceWith(markdown(answers[plain.dataset.answer]));
  }
}

const section = (title, kind, ...content) => el("section", { class: "part " + kind }, el("h3", {}, title), ...content);

const none = () => el("p", { class: "null" }, "none");

function roleSection(column, value) {
  return section(titleOf(column.name), column.role, roleContent(column, value) || none());
}

function roleContent({ name, role }, value) {
  if (value === null || value === undefined || value === "") return null;
  switch (role) {
    case "answer": return el("div", { class: "plain", "data-answer": name, dir: "auto" }, String(value));
    case "tags": {
      const tags = tagsOf(value);
      return tags.length > 0 ? el("p", { class: "tags-line" }, ...tags.map(tagChip)) : null;
    }
    case "citations": return citationList(value);
    default: return el("div", { class: "plain", dir: "auto" }, String(value));
  }
}

function plainValue(column, value) {
  if (value === null || value === undefined) return el("span", { class: "null" }, "null");
  if (value === "") return el("span", { class: "null" }, "empty");
  return column.type.startsWith("timestamp") ? formatTimestamp(value, true) : String(value);
}
