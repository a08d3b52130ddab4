// A small picture of a vector: one bar per number, up where it is positive and down where it is negative.

import { byId, count, figure, make } from "/page/dom.js";

const HEIGHT = 100, MOST_BARS = 512;

export function showVector(vector) {
  const known = vector.filter((value) => value !== null);
  const largest = known.reduce((size, value) => Math.max(size, Math.abs(value)), 0) || 1;
  const bars = strongest(vector);
  const path = (sign) => bars.map((value, index) => {
    const height = value === null || Math.sign(value) !== sign ? 0 : (Math.abs(value) / largest) * (HEIGHT / 2 - 3);
    return height === 0 ? "" : `M${index + 0.08} ${HEIGHT / 2}v${(-sign * height).toFixed(2)}h.84V${HEIGHT / 2}z`;
  }).join("");
  const picture = byId("vector");
  picture.setAttribute("viewBox", `-1 0 ${bars.length + 2} ${HEIGHT}`);
  picture.replaceChildren(
    make("svg:rect", { x: -1, y: HEIGHT / 2 - 0.4, width: bars.length + 2, height: 0.8, class: "zero" }),
    make("svg:path", { d: path(1), class: "plus" }), make("svg:path", { d: path(-1), class: "minus" }));
  const length = Math.sqrt(known.reduce((sum, value) => sum + value * value, 0));
  const lost = vector.length - known.length;
  const facts = known.length === 0 ? ["none is finite"] : [`from ${figure(Math.min(...known))} to ${figure(Math.max(...known))}`, `length ${figure(length)}`];
  if (lost > 0 && known.length > 0) facts.push(`${count(lost)} not finite`);
  byId("vector-note").textContent = [`${count(vector.length)} numbers`, ...facts].join(", ");
  picture.setAttribute("aria-label", `The vector: ${byId("vector-note").textContent}`);
}

/** Of a long vector, the number of largest size from each of MOST_BARS equal parts. */
function strongest(vector) {
  if (vector.length <= MOST_BARS) return vector;
  return Array.from({ length: MOST_BARS }, (_, bar) => {
    const part = vector.slice(Math.floor((bar * vector.length) / MOST_BARS), Math.floor(((bar + 1) * vector.length) / MOST_BARS));
    return part.reduce((best, value) => (value !== null && (best === null || Math.abs(value) > Math.abs(best)) ? value : best), null);
  });
}
