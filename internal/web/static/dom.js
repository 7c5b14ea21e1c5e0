// Functions that make elements. They use only texts, never markup.

export const $ = (id) => document.getElementById(id);

// el makes an element: el("a", {href: "/", class: "x"}, "text", child, …). It leaves out attributes and children that
// are null or undefined, and attributes that are false. An attribute that begins with "on" is a listener.
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// safeLink makes an anchor if the address begins with http:, https: or mailto:. For any other address, such as javascript:, it
// makes a span with the same content.
export function safeLink(address, ...children) {
  let url = null;
  try {
    url = new URL(address);
  } catch {
    // a relative address, or no address
  }
  if (!url || !["http:", "https:", "mailto:"].includes(url.protocol)) return el("span", {}, ...children);
  return el("a", { href: url.href, target: "_blank", rel: "noopener noreferrer" }, ...children);
}
