// Words on a page: only what changes is written, since every write makes the browser lay out and paint.
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function mark(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// A text with its {gaps} filled.
export function tell(text, values) {
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
