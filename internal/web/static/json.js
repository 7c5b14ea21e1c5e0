// A JSON parser that keeps the digits of numbers.

// Exact is a number that JavaScript cannot represent. It is shown with the digits that it has in the JSON.
export class Exact {
  constructor(text) { this.text = text; }
  toString() { return this.text; }
}

// parseJSON parses an answer of the API. JSON.parse with a reviver recurses, so it throws a RangeError for a deeply nested
// value. A vote with such a value must not affect other votes. Each row is on a line of its own, so parseJSON then parses the
// rows one by one, and numbers keep their digits in every other row.
export function parseJSON(text) {
  try {
    return parseExact(text);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  const answer = JSON.parse(text);
  const lines = text.split("\n").filter((line) => line.startsWith('{"key":'));
  if (lines.length === answer.rows?.length) {
    answer.rows = answer.rows.map((row, i) => {
      try {
        return parseExact(lines[i].replace(/,$/, ""));
      } catch {
        return row;
      }
    });
  }
  return answer;
}

const parseExact = (text) => JSON.parse(text, (_, value, context) =>
  typeof value === "number" && context && String(value) !== context.source ? new Exact(context.source) : value);

// isNested reports whether a value is an array or an object.
export const isNested = (value) => value !== null && typeof value === "object" && !(value instanceof Exact);
