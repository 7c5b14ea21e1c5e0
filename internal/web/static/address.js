// The filter and the open vote, as the page's address has them: #q=…&tag=…&question=…&from=…&to=…&vote=…. A browser never sends
// this part of an address to a server. Pure functions.

export const filterNames = ["q", "tag", "question", "from", "to"];

// parseFragment returns the filter and the key of the open vote, "" for none.
export function parseFragment(hash) {
  const params = new URLSearchParams(hash.replace(/^#/, ""));
  return {
    filter: Object.fromEntries(filterNames.map((name) => [name, params.get(name) || ""])),
    vote: params.get("vote") || "",
  };
}

// tokenOf returns the token in an address such as #token=…, "" for none. capture status prints such an address.
export const tokenOf = (hash) => new URLSearchParams(hash.replace(/^#/, "")).get("token") || "";

export function fragmentOf(filter, vote) {
  return "#" + paramsOf({ ...filter, vote }, [...filterNames, "vote"]);
}

// queryOf returns the query string that asks the API for the votes that match the filter.
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
