// Markdown as chat models write it, as elements. Markup in the text has no effect: HTML stays text, images become links,
// and only addresses of http, https and mailto become links.

import { el, safeLink } from "./dom.js";

const longest = 200_000; // characters; the rest of a longer text is shown as it is
const deepest = 12;      // levels of lists, quotes and emphasis

export function markdown(text) {
  const root = el("div", { class: "markdown" });
  blocks(text.slice(0, longest).replace(/\r\n?/g, "\n").split("\n"), root, 0);
  if (text.length > longest) root.append(el("pre", {}, text.slice(longest)));
  return root;
}

const fence = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const heading = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const quote = /^ {0,3}> ?/;
const item = /^( {0,3})([-*+]|\d{1,9}[.)])( +|$)/;
const delimiters = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const blank = (line) => line.trim() === "";

function rule(line) {
  const t = line.replace(/[ \t]/g, "");
  return t.length >= 3 && "-*_".includes(t[0]) && t === t[0].repeat(t.length) && !/^( {4}|\t)/.test(line);
}

function tableAt(lines, i) {
  return lines[i].includes("|") && i + 1 < lines.length && lines[i + 1].includes("|") && delimiters.test(lines[i + 1]);
}

// startsBlock reports whether a line ends the paragraph before it.
const startsBlock = (line) => fence.test(line) || heading.test(line) || quote.test(line) || rule(line) || item.test(line);

function blocks(lines, into, depth) {
  if (depth > deepest) {
    into.append(el("p", {}, lines.join("\n")));
    return;
  }
  for (let i = 0; i < lines.length;) {
    const line = lines[i];
    let m;
    if (blank(line)) i++;
    else if ((m = fence.exec(line))) i = fenced(lines, i, m, into);
    else if ((m = heading.exec(line))) {
      const h = el("h" + Math.min(6, m[1].length + 2));
      inline((m[2] || "").replace(/[ \t]+#+[ \t]*$/, ""), h, 0);
      into.append(h);
      i++;
    } else if (rule(line)) {
      into.append(el("hr"));
      i++;
    } else if (quote.test(line)) {
      const inner = [];
      while (i < lines.length && !blank(lines[i]) && (quote.test(lines[i]) || !startsBlock(lines[i]))) inner.push(lines[i++].replace(quote, ""));
      const q = el("blockquote");
      blocks(inner, q, depth + 1);
      into.append(q);
    } else if (item.test(line)) i = list(lines, i, into, depth);
    else if (tableAt(lines, i)) i = table(lines, i, into);
    else if (/^( {4}|\t)/.test(line)) {
      const code = [];
      while (i < lines.length && (blank(lines[i]) || /^( {4}|\t)/.test(lines[i]))) code.push(lines[i++].replace(/^( {1,4}|\t)/, ""));
      into.append(el("pre", {}, el("code", {}, code.join("\n").trimEnd())));
    } else i = paragraph(lines, i, into);
  }
}

function fenced(lines, i, open, into) {
  const mark = open[1];
  const code = [];
  for (i++; i < lines.length; i++) {
    const t = lines[i].trim();
    if (t.length >= mark.length && t === mark[0].repeat(t.length)) {
      i++;
      break;
    }
    code.push(lines[i]);
  }
  into.append(el("pre", {}, el("code", {}, code.join("\n"))));
  return i;
}

function paragraph(lines, i, into) {
  const text = [];
  while (i < lines.length && !blank(lines[i])) {
    if (text.length > 0) {
      const under = /^ {0,3}(=+|-+)[ \t]*$/.exec(lines[i]);
      if (under) {
        const h = el(under[1][0] === "=" ? "h3" : "h4");
        inline(text.join("\n"), h, 0);
        into.append(h);
        return i + 1;
      }
      if (startsBlock(lines[i]) || tableAt(lines, i)) break;
    }
    text.push(lines[i++].trimStart());
  }
  const p = el("p");
  inline(text.join("\n").trimEnd(), p, 0);
  into.append(p);
  return i;
}

function list(lines, i, into, depth) {
  const first = item.exec(lines[i]);
  const ordered = first[2].length > 1;
  const kind = first[2].at(-1); // another sign begins another list
  const start = ordered ? Number.parseInt(first[2], 10) : 1;
  const node = el(ordered ? "ol" : "ul", { start: ordered && start !== 1 ? String(start) : null });
  while (i < lines.length) {
    const m = item.exec(lines[i]);
    if (!m || m[2].at(-1) !== kind || m[2].length > 1 !== ordered || rule(lines[i])) break;
    // The content's column; a code block within the item may stand further in.
    const width = m[3].length > 4 ? m[0].length - m[3].length + 1 : Math.max(m[0].length, m[1].length + m[2].length + 1);
    const inner = [lines[i++].slice(width)];
    while (i < lines.length) {
      const indent = lines[i].length - lines[i].trimStart().length;
      if (blank(lines[i])) {
        let next = i;
        while (next < lines.length && blank(lines[next])) next++;
        if (next === lines.length || lines[next].length - lines[next].trimStart().length < Math.min(width, 2 + m[1].length)) break;
        while (i < next) { inner.push(""); i++; }
      } else if (indent >= width) inner.push(lines[i++].slice(width));
      else if (indent > m[1].length && indent >= 2 && item.test(lines[i].trimStart())) inner.push(lines[i++].trimStart());
      else if (!startsBlock(lines[i]) && !blank(inner.at(-1))) inner.push(lines[i++].trimStart());
      else break;
    }
    const li = el("li");
    blocks(inner, li, depth + 1);
    // A short item is its text, without a paragraph around it.
    if (li.firstElementChild?.tagName === "P" && li.querySelectorAll(":scope > p").length === 1) li.firstElementChild.replaceWith(...li.firstElementChild.childNodes);
    node.append(li);
    let next = i;
    while (next < lines.length && blank(lines[next])) next++;
    if (next < lines.length && item.test(lines[next])) i = next;
  }
  into.append(node);
  return i;
}

function cells(line) {
  const out = [""];
  const text = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  for (let i = 0; i < text.length; i++) {
    if (text[i] === "\\" && text[i + 1] === "|") out[out.length - 1] += text[++i];
    else if (text[i] === "|") out.push("");
    else out[out.length - 1] += text[i];
  }
  return out.map((c) => c.trim());
}

function table(lines, i, into) {
  const head = cells(lines[i]);
  const row = (texts, name) => el("tr", {}, ...head.map((_, n) => {
    const cell = el(name);
    inline(texts[n] || "", cell, 0);
    return cell;
  }));
  const body = el("tbody");
  const node = el("table", {}, el("thead", {}, row(head, "th")), body);
  for (i += 2; i < lines.length && lines[i].includes("|") && !blank(lines[i]); i++) body.append(row(cells(lines[i]), "td"));
  into.append(el("div", { class: "table" }, node));
  return i;
}

const emphases = [["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];
const punctuation = /[!-/:-@[-`{-~]/;
const wordy = /[\p{L}\p{N}]/u;
const address = /https?:\/\/[^\s<>"'`]+/y;

function inline(text, into, depth) {
  let plain = "";
  const flush = () => {
    if (plain) into.append(plain);
    plain = "";
  };
  const put = (node) => {
    flush();
    into.append(node);
  };
  const without = new Map(); // by closing sign: the offset before which the text has none
  for (let i = 0; i < text.length;) {
    const c = text[i];
    let end;
    if (c === "\\" && i + 1 < text.length) {
      if (text[i + 1] === "\n") put(el("br"));
      else plain += punctuation.test(text[i + 1]) ? text[i + 1] : "\\" + text[i + 1];
      i += 2;
    } else if (c === "`" && (end = codeSpan(text, i, without))) {
      put(el("code", {}, end.code));
      i = end.next;
    } else if (c === "\n") {
      if (plain.endsWith("  ")) {
        plain = plain.trimEnd();
        put(el("br"));
      } else plain += "\n";
      i++;
    } else if ((c === "[" || c === "!" && text[i + 1] === "[") && depth < deepest && (end = bracket(text, c === "!" ? i + 1 : i))) {
      const inner = el("span");
      if (c === "!") inner.append("image: " + (end.label || end.address));
      else inline(end.label, inner, depth + 1);
      put(safeLink(end.address, ...inner.childNodes));
      i = end.next;
    } else if (c === "<" && (end = /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/.exec(text.slice(i, i + 2000)))) {
      put(safeLink(end[1], end[1]));
      i += end[0].length;
    } else if (c === "h" && !wordy.test(text[i - 1] || " ") && (end = bareAddress(text, i))) {
      put(safeLink(end, end));
      i += end.length;
    } else if ("*_~".includes(c) && depth < deepest && (end = emphasis(text, i, without))) {
      const node = el(end.name);
      inline(text.slice(end.from, end.to), node, depth + 1);
      put(node);
      i = end.next;
    } else {
      plain += c;
      i++;
    }
  }
  flush();
}

function run(text, i) {
  let n = i;
  while (text[n] === text[i]) n++;
  return n - i;
}

function codeSpan(text, i, without) {
  const n = run(text, i);
  const mark = "`".repeat(n);
  if (without.has(mark)) return null;
  for (let at = i + n; (at = text.indexOf(mark, at)) >= 0;) {
    const length = run(text, at);
    if (length === n) {
      let code = text.slice(i + n, at).replace(/\n/g, " ");
      if (code.startsWith(" ") && code.endsWith(" ") && code.trim()) code = code.slice(1, -1);
      return { code, next: at + n };
    }
    at += length;
  }
  without.set(mark, text.length);
  return null;
}

// bracket reads [label](address "title").
function bracket(text, i) {
  const limit = Math.min(text.length, i + 1000);
  let depth = 0, end = i;
  for (; end < limit; end++) {
    if (text[end] === "\\") end++;
    else if (text[end] === "[" && ++depth > deepest) return null;
    else if (text[end] === "]" && --depth === 0) break;
  }
  if (end >= limit || text[end + 1] !== "(") return null;
  let close = end + 2, nested = 0;
  const last = Math.min(text.length, close + 2000);
  for (; close < last; close++) {
    if (text[close] === "(" && ++nested > deepest) return null;
    if (text[close] === ")" && nested-- === 0) break;
  }
  if (close >= last) return null;
  const target = text.slice(end + 2, close).trim().replace(/\s+(".*"|'.*')$/s, "").replace(/^<(.*)>$/, "$1");
  if (/\s/.test(target)) return null;
  return { label: text.slice(i + 1, end), address: target, next: close + 1 };
}

function bareAddress(text, i) {
  address.lastIndex = i;
  const m = address.exec(text);
  if (!m) return null;
  let found = m[0].replace(/[.,;:!?*_~]+$/, "");
  while (found.endsWith(")") && found.split(")").length > found.split("(").length) found = found.slice(0, -1);
  return found.length > "https://".length ? found : null;
}

function emphasis(text, i, without) {
  for (const [mark, name] of emphases) {
    if (!text.startsWith(mark, i)) continue;
    const from = i + mark.length;
    if (from >= text.length || /\s/.test(text[from])) continue;
    // snake_case is no emphasis.
    if (mark[0] === "_" && wordy.test(text[i - 1] || " ")) continue;
    let at = Math.max(from, without.get(mark) ?? 0);
    while ((at = text.indexOf(mark, at)) >= 0) {
      const length = run(text, at);
      const fits = !/\s/.test(text[at - 1]) && text[at - 1] !== "\\" && at > from && (mark.length === length || length > 2 || mark === "~~");
      if (fits && !(mark[0] === "_" && wordy.test(text[at + length] || " "))) {
        const to = length > 2 ? at + length - mark.length : at; // the inner ones of *** close first
        return { name, from, to, next: to + mark.length };
      }
      at += length;
    }
    without.set(mark, text.length);
  }
  return null;
}
