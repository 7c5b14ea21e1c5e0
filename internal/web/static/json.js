// A JSON parser that keeps the digits of numbers.

// Exact is a number that JavaScript cannot represent. It is shown with the digits that it has in the JSON.
export class Exact {
  constructor(text) { this.text = text; }
  toString() { return this.text; }
}

// parseJSON parses an answer or an event of the API. JSON.parse with a reviver recurses, so it throws a RangeError for a deeply
// nested value. A vote with such a value must not affect other votes, so parseJSON then parses the rows one by one, and numbers
// keep their digits in every other row.
export function parseJSON(text) {
  try {
    return parseExact(text);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  const answer = JSON.parse(text);
  const texts = rowTexts(text);
  if (texts.length === answer.rows?.length) {
    answer.rows = answer.rows.map((row, i) => {
      try {
        return parseExact(texts[i]);
      } catch {
        return row;
      }
    });
  }
  return answer;
}

// rowTexts returns the text of each element of an answer's rows. It does not recurse.
function rowTexts(text) {
  const found = [];
  const tokens = /["\\[\]{}]/g;
  tokens.lastIndex = text.indexOf('"rows":[') + '"rows":['.length;
  let depth = 0, start = 0, inString = false;
  for (let token; depth >= 0 && (token = tokens.exec(text)) !== null;) {
    if (token[0] === "\\") tokens.lastIndex++; // skips the escaped character
    else if (token[0] === '"') inString = !inString;
    else if (inString) continue;
    else if (token[0] === "{" || token[0] === "[") {
      if (depth === 0) start = token.index;
      depth++;
    } else {
      depth--;
      if (depth === 0) found.push(text.slice(start, tokens.lastIndex));
    }
  }
  return found;
}

const parseExact = (text) => JSON.parse(text, (_, value, context) =>
  typeof value === "number" && context && String(value) !== context.source ? new Exact(context.source) : value);

// isNested reports whether a value is an array or an object.
export const isNested = (value) => value !== null && typeof value === "object" && !(value instanceof Exact);
