// The list of neighbours: links, so that each has an address; arrow keys move through them.

import { byId, figure, make, show } from "/page/dom.js";
import { addressOf } from "/page/address.js";
import { classColour } from "/page/theme.js";

export function showNeighbours({ searched, neighbours, near, classes, k, metric }) {
  const note = byId("near-note"), closest = spread(neighbours, metric);
  byId("near").replaceChildren(...neighbours.map((neighbour, index) =>
    make("li", {}, link(neighbour, index, near[index], classes, closest(neighbour.score), { k, metric }))));
  note.textContent = searched.refused ?? "No other row of the table can be compared with this one.";
  show(note, neighbours.length === 0);
}

function link({ id, score }, index, { label }, classes, share, choice) {
  const named = label === null ? "" : classes[label];
  const dot = label === null ? "" : make("span", { class: "dot", title: named, style: { "--colour": classColour(label) } });
  const text = String(id);
  return make("a", { href: addressOf({ id: text, ...choice }), "data-id": text, tabindex: index === 0 ? "0" : "-1", "aria-label": `${text}${named && `, ${named}`}, score ${figure(score)}` },
    make("span", { class: "rank" }, String(index + 1)), make("span", {}, dot),
    make("span", { class: "name code" }, text),
    make("span", { class: "track" }, make("span", { style: { "--share": share.toFixed(3) } })),
    make("span", { class: "score" }, figure(score)));
}

/** Return how long the bar of a score is: cosine by its value, others between the farthest listed and the nearest. */
function spread(neighbours, metric) {
  if (metric === "cosine") return (score) => Math.max(0, Math.min(1, score));
  const scores = neighbours.map(({ score }) => score);
  const low = Math.min(...scores), high = Math.max(...scores), width = high - low || 1;
  return (score) => 0.15 + 0.85 * (metric === "l2" ? high - score : score - low) / width;
}

/** Let keys move through the list; `onOpen(id, byKey)` opens, `onFocus(id or null)` follows the focus. */
export function startNeighbours(onOpen, onFocus) {
  const list = byId("near");
  list.addEventListener("keydown", (event) => {
    const links = [...list.querySelectorAll("a")], at = links.indexOf(document.activeElement);
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (next === undefined || at < 0) return;
    event.preventDefault();
    if (next < 0) byId("query").focus();
    else focusLink(links, Math.min(next, links.length - 1));
  });
  list.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    onOpen(link.dataset.id, event.detail === 0);
  });
  list.addEventListener("focusin", (event) => onFocus(event.target.dataset.id ?? null));
  list.addEventListener("focusout", () => onFocus(null));
  list.addEventListener("pointerover", (event) => onFocus(event.target.closest("a")?.dataset.id ?? null));
  list.addEventListener("pointerleave", () => onFocus(null));
}

function focusLink(links, index) {
  for (const link of links) link.tabIndex = -1;
  links[index].tabIndex = 0;
  links[index].focus();
}

/** Give the first neighbour the focus; false when there is none. */
export function focusFirst() {
  const links = [...byId("near").querySelectorAll("a")];
  if (links.length > 0) focusLink(links, 0);
  return links.length > 0;
}
