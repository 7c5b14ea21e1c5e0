// Elements for the votes of the list.

import { fragmentOf, wordsOf } from "./address.js";
import { el } from "./dom.js";
import { excerpt, formatTimestamp, tagsOf, withoutMarkdown } from "./format.js";
import { isNested } from "./json.js";
import { highlight, tagChip } from "./value.js";

// VoteRows shows votes in a list element. It keeps the elements of votes that have not changed, so a vote does not move while
// the reader clicks on it.
export class VoteRows {
  #element;
  #shown = new Map(); // by key: {node, source}; source contains everything that the node was made of

  constructor(element) { this.#element = element; }

  // show replaces the votes that are shown. fresh contains the keys of the votes that have just arrived.
  show(votes, columns, filter, fresh = new Set()) {
    const before = this.#shown;
    this.#shown = new Map();
    const words = wordsOf(filter);
    const shared = JSON.stringify([columns, words]);
    for (const vote of votes) {
      const source = shared + textOf(vote.row);
      const old = before.get(vote.key);
      const unchanged = old?.source === source;
      const node = unchanged ? old.node : safeVoteRow(vote, columns, words, fresh.has(vote.key));
      if (old && !unchanged && old.node.contains(document.activeElement)) queueMicrotask(() => focusLink(node));
      node.firstElementChild.setAttribute("href", fragmentOf(filter, vote.key));
      this.#shown.set(vote.key, { node, source });
    }
    const nodes = [...this.#shown.values()].map(({ node }) => node);
    const kept = new Set(nodes);
    for (const child of [...this.#element.children]) if (!kept.has(child)) child.remove();
    nodes.forEach((node, i) => {
      const there = this.#element.children[i];
      if (there !== node) this.#element.insertBefore(node, there || null);
    });
  }

  focus(key) { focusLink(this.#shown.get(key)?.node); }

  focusAt(index) { focusLink(this.#element.children[index], { preventScroll: true }); }
}

const focusLink = (node, options) => node?.firstElementChild.focus(options);

// safeVoteRow returns the element of a vote. If a vote cannot be shown, its element contains a note, and the other votes are
// not affected.
function safeVoteRow(vote, columns, words, fresh) {
  try {
    return voteRow(vote, columns, words, fresh);
  } catch (error) {
    return el("li", { "data-key": vote.key }, el("a", { href: "#" }, el("div", { class: "meta" }, el("span", {}, "#" + vote.key)),
      el("div", { class: "second-line" }, `This vote can't be shown here (${error.message}). feedback.json has it.`)));
  }
}

// textOf returns a value as JSON. If the value is nested too deeply for that, it returns a note.
function textOf(value) {
  try {
    return JSON.stringify(value);
  } catch {
    return "nested too deeply to be shown here";
  }
}

function voteRow(vote, columns, words, fresh) {
  const valueOf = (role) => {
    const column = columns.find((c) => c.role === role);
    return column ? vote.row[column.name] : null;
  };
  const line = (kind, text) => el("div", { class: kind, dir: "auto" }, highlight(excerpt(text, words), words));

  const meta = el("div", { class: "meta" }, el("span", {}, "#" + vote.key));
  if (valueOf("time")) meta.append(el("time", {}, formatTimestamp(valueOf("time"))));
  meta.append(...tagsOf(valueOf("tags")).map(tagChip));

  const lines = [];
  if (valueOf("question")) lines.push(line("main-line", String(valueOf("question"))));
  if (valueOf("answer")) lines.push(line("second-line", withoutMarkdown(String(valueOf("answer")))));
  if (valueOf("comment")) lines.push(line("comment-line", String(valueOf("comment"))));
  if (lines.length === 0) lines.push(line("second-line", otherValues(vote, columns) || "no text"));
  return el("li", { class: fresh ? "new" : null, "data-key": vote.key }, el("a", { href: "#" }, meta, ...lines));
}

// otherValues returns the first columns without a role, for a table that has none of a vote's texts.
function otherValues(vote, columns) {
  return columns.filter((column) => !column.role && !column.key && vote.row[column.name] !== null).slice(0, 5)
    .map(({ name }) => `${name}: ${isNested(vote.row[name]) ? textOf(vote.row[name]) : String(vote.row[name])}`).join(" · ");
}
