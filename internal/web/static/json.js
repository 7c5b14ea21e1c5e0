// JSON whose numbers keep their digits.

// Exact is a number that JavaScript cannot represent. It is shown as the JSON has it.
export class Exact {
  constructor(text) { this.text = text; }
  toString() { return this.text; }
}

export function parseJSON(text) {
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && context && String(value) !== context.source ? new Exact(context.source) : value);
}

// isNested reports whether a value is an array or an object.
export const isNested = (value) => value !== null && typeof value === "object" && !(value instanceof Exact);
