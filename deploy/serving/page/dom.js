// The few things that every part of the page does with the document. Text is always set as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** Make an element; `attributes` with the value null or false are left out, children are text or elements. */
export function make(name, attributes = {}, ...children) {
  const element = name.includes(":")
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(name.indexOf(":") + 1))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === false || value === undefined) continue;
    if (key === "style") for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** Show or hide an element. */
export function show(element, visible = true) {
  element.hidden = !visible;
}

/** Say something to people who do not see the page. */
export function say(text) {
  byId("said").textContent = text;
}

/** Show a sentence about what failed; an empty one takes it away. */
export function alertUser(sentence) {
  const line = byId("alert");
  line.textContent = sentence;
  show(line, sentence !== "");
}

const plain = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (value) => plain.format(value);
export const brief = (value) => (value < 10000 ? plain.format(value) : short.format(value));

/** A number to about four digits. */
export function figure(value) {
  if (value === null || !Number.isFinite(value)) return "none";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 4);
  return text.replaceAll("-", "−");
}

/** Seconds as people read them. */
export function duration(seconds) {
  if (seconds === null) return "–";
  if (seconds < 0.001) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) return `${(seconds * 1e3).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  return `${seconds.toFixed(1)} s`;
}
