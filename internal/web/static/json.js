// JSON whose numbers keep their digits.

// Exact is a number that JavaScript cannot represent. It is shown as the JSON has it.
export class Exact {
  constructor(text) { this.text = text; }
  toString() { return this.text; }
}

// parseJSON parses an answer of the API. A reviver recurses, so a deeply nested value makes it throw a RangeError. Such a vote must
// not hide the others: numbers keep their digits in every other row, which has a line of its own.
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
