// Pure functions for the fragment of the page's address, which contains the filter and the key of the open vote:
// #q=…&tag=…&question=…&from=…&to=…&vote=…. A browser never sends the fragment to a server.

export const filterNames = ["q", "tag", "question", "from", "to"];

// parseFragment returns the filter, and the key of the open vote or "".
export function parseFragment(hash) {
  const params = new URLSearchParams(hash.replace(/^#/, ""));
  return {
    filter: Object.fromEntries(filterNames.map((name) => [name, params.get(name) || ""])),
    vote: params.get("vote") || "",
  };
}

// tokenOf returns the token in an address such as #token=…, or "". capture status prints such an address.
export const tokenOf = (hash) => new URLSearchParams(hash.replace(/^#/, "")).get("token") || "";

export function fragmentOf(filter, vote) {
  return "#" + paramsOf({ ...filter, vote }, [...filterNames, "vote"]);
}

// queryOf returns the query string with which the page requests the votes that match the filter.
export function queryOf(filter, extra = {}) {
  const params = paramsOf(filter, filterNames);
  for (const [name, value] of Object.entries(extra)) params.set(name, value);
  const text = params.toString();
  return text ? "?" + text : "";
}

function paramsOf(values, names) {
  const params = new URLSearchParams();
  for (const name of names) if (values[name]) params.set(name, values[name]);
  return params;
}

export const isFiltered = (filter) => filterNames.some((name) => filter[name]);

export const sameFilter = (a, b) => filterNames.every((name) => a[name] === b[name]);

export const wordsOf = (filter) => filter.q.split(/\s+/).filter(Boolean);
