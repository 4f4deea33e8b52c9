// Elements from data. Whatever comes from the service becomes a text node or an attribute's value,
// never markup.

/** An element: its name, its attributes (`on…` listens), and what is in it: elements and texts. */
export function el(name, attributes = {}, ...content) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...content.flat().filter((part) => part != null));
  return made;
}

/** The same for a drawing. */
export function svg(name, attributes, ...content) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...content);
  return made;
}

export function $(selector, within = document) {
  return within.querySelector(selector);
}

/** Set a text where it is another: what is read aloud is only what changed. */
export function say(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

/**
 * Put elements in the place of those that are there, without taking the focus from a control that
 * is there again by its id.
 */
export function replace(place, ...content) {
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  place.replaceChildren(...content.flat());
  if (focused) document.getElementById(focused)?.focus();
}

/** A table's head: titles, each with the class of its column. */
export function head(columns) {
  const cells = columns.map(([title, kind]) => el("th", { scope: "col", class: kind }, title));
  return el("thead", {}, el("tr", {}, cells));
}

/** The options of a select; the first one may stand for none. */
export function options(select, values, none) {
  const chosen = select.value;
  const all = values.map((value) => (Array.isArray(value) ? value : [value, value]));
  if (none != null) all.unshift(["", none]);
  select.replaceChildren(...all.map(([value, text]) => el("option", { value }, text)));
  if (all.some(([value]) => value === chosen)) select.value = chosen;
}
