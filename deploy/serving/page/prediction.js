// What the model behind the table says of a node.

import { byId, make, show } from "/page/dom.js";
import { classColour } from "/page/theme.js";

const MOST = 5;

export function showPrediction(predicted, names) {
  const probabilities = predicted.refused ? null : predicted.probabilities?.[0] ?? null;
  // A server without the run has nothing to predict with; that is no fault to dwell on.
  show(byId("prediction"), probabilities !== null);
  if (probabilities === null) return;
  const ranked = probabilities.map((value, index) => ({ value, index })).sort((a, b) => b.value - a.value);
  const shown = ranked.slice(0, MOST), rest = ranked.slice(MOST).reduce((sum, { value }) => sum + value, 0);
  byId("probabilities").replaceChildren(...shown.map(({ value, index }) => bar(value, index, nameOf(index, predicted.classes, names))));
  const note = byId("prediction-note");
  note.textContent = `${ranked.length - MOST} other classes: ${percent(rest)}`;
  show(note, ranked.length > MOST);
}

function nameOf(index, classes, names) {
  return names[index] ?? (Array.isArray(classes) && typeof classes[index] === "string" ? classes[index] : `class ${index}`);
}

const percent = (share) => (share > 0 && share < 0.0005 ? "< 0.1 %" : `${(share * 100).toFixed(1)} %`);

function bar(value, index, name) {
  const colour = classColour(index);
  return make("li", {},
    make("span", { class: "dot", style: { "--colour": colour } }), make("span", { class: "name", title: name }, name),
    make("span", { class: "track" }, make("span", { style: { "--share": Math.min(1, value).toFixed(4), "--colour": colour } })),
    make("span", {}, percent(value)));
}
