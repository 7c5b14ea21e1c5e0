// Which votes the list shows. Pure functions.
//
// A list is {rows, next, extended}. rows are the votes, {key, next, row}, newest first; next is the place after which the
// following page begins, null at the end; extended is true once the reader has asked for more than the first page.

export const emptyList = { rows: [], next: null, extended: false };

// maxRows is how many votes a list keeps as new ones arrive, unless the reader has extended it.
const maxRows = 500;

export const firstPage = (rows, next) => ({ rows, next, extended: false });

export const appendPage = (list, page) => ({ rows: mergeRows(list.rows, page.rows), next: page.next, extended: true });

// prependArrived puts new votes, newest first, before those of the list. If there are more new votes than these, the list
// becomes the arrived page. Otherwise the votes between that page and the old list would never be shown.
export function prependArrived(list, arrived, more = false) {
  if (more) return firstPage(arrived, placeOf(arrived.at(-1)));
  const rows = mergeRows(arrived, list.rows);
  if (list.extended || rows.length <= maxRows) return { ...list, rows };
  return { ...list, rows: rows.slice(0, maxRows), next: placeOf(rows[maxRows - 1]) };
}

// placeOf returns the place of a vote, after which a page can begin. Without an order by time, that is its key.
const placeOf = (row) => row.next ?? row.key;

// mergeRows appends to some rows those of the others that they lack.
function mergeRows(rows, others) {
  const known = new Set(rows.map((row) => row.key));
  return [...rows, ...others.filter((row) => !known.has(row.key))];
}

export const findVote = (list, key) => list.rows.find((row) => row.key === key);

// neighboursOf returns the votes above and below a vote in the list, undefined at its ends or for a vote beyond it.
export function neighboursOf(list, key) {
  const at = list.rows.findIndex((row) => row.key === key);
  if (at < 0) return {};
  return { newer: list.rows[at - 1], older: list.rows[at + 1] };
}
