// Elements are made from text, never from markup.

// el makes an element: el("a", {href: "/", class: "x"}, "text", child, …). Attributes that are null, undefined or false
// are left out.
export function el(name, attributes = {}, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else e.setAttribute(key, value === true ? "" : value);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

export const $ = (id) => document.getElementById(id);

// link is an anchor for a http, https or mailto address, and the bare text for anything else.
export function link(address, ...children) {
  let url = null;
  try {
    url = new URL(address);
  } catch {
    // not an address
  }
  if (!url || !["http:", "https:", "mailto:"].includes(url.protocol)) {
    return el("span", {}, ...children);
  }
  return el("a", { href: url.href, target: "_blank", rel: "noopener noreferrer" }, ...children);
}
