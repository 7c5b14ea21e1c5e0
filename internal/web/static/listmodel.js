// Pure functions that decide which votes the list shows.
//
// A list is {rows, next, extended}. rows are the votes, {key, next, row}, newest first. next is the place after which the next
// page begins, or null at the end. extended is true once the reader has requested more than the first page.

export const emptyList = { rows: [], next: null, extended: false };

// maxRows is the maximum number of votes that a list keeps when new votes arrive, unless the reader has extended the list.
const maxRows = 500;

export const firstPage = (rows, next) => ({ rows, next, extended: false });

export const appendPage = (list, page) => ({ rows: mergeRows(list.rows, page.rows), next: page.next, extended: true });

// prependArrived puts new votes, newest first, before the votes of the list. more is true if the server has not sent all new
// votes. The list then becomes the arrived votes only: the votes between them and the old list would otherwise never be shown.
export function prependArrived(list, arrived, more = false) {
  if (more) return firstPage(arrived, placeOf(arrived.at(-1)));
  const rows = mergeRows(arrived, list.rows);
  if (list.extended || rows.length <= maxRows) return { ...list, rows };
  return { ...list, rows: rows.slice(0, maxRows), next: placeOf(rows[maxRows - 1]) };
}

// placeOf returns the place of a vote, after which a page can begin. If the votes are not ordered by time, the place is the
// key.
const placeOf = (row) => row.next ?? row.key;

// mergeRows returns rows, followed by those of others that are not in rows.
function mergeRows(rows, others) {
  const known = new Set(rows.map((row) => row.key));
  return [...rows, ...others.filter((row) => !known.has(row.key))];
}

export const findVote = (list, key) => list.rows.find((row) => row.key === key);

// neighborsOf returns the votes before and after a vote in the list. A neighbor is undefined at an end of the list, or if the
// vote is not in the list.
export function neighborsOf(list, key) {
  const at = list.rows.findIndex((row) => row.key === key);
  if (at < 0) return {};
  return { newer: list.rows[at - 1], older: list.rows[at + 1] };
}
