// The chosen node: what the table holds of it, what the model says of it, and what lies near it.

import { Refusal, postJson } from "/page/api.js";
import { byId, make, say, show } from "/page/dom.js";
import { showNeighbours } from "/page/neighbours.js";
import { showPrediction } from "/page/prediction.js";
import { classColour } from "/page/theme.js";
import { showVector } from "/page/vector.js";

/** Ask for everything about one node; null where the table does not hold it. */
export async function fetchNode(id, { k, metric, predicts, signal }) {
  const ids = [id];
  const [looked, searched, predicted] = await Promise.all([
    postJson("/v1/embeddings/lookup", { ids }, { signal }),
    optional(postJson("/v1/embeddings/search", { ids, k, metric }, { signal })),
    predicts ? optional(postJson("/v1/predict", { ids }, { signal })) : { refused: "" },
  ]);
  if (!looked.found[0]) return null;
  const neighbours = searched.refused ? [] : searched.neighbors[0] ?? [];
  const places = await optional(postJson(`/v1/tables/${looked.version}/places`, { ids: [id, ...neighbours.map((near) => String(near.id))] }, { signal }));
  return { id, k, metric, version: looked.version, vector: looked.vectors[0], searched, predicted, neighbours, ...located(id, neighbours, places) };
}

/** What the server cannot do for this table is told in its place, and keeps nothing else from being shown. */
async function optional(reply) {
  try {
    return await reply;
  } catch (error) {
    if (error instanceof Refusal && [404, 409, 422, 501].includes(error.status)) return { refused: error.message };
    throw error;
  }
}

function located(id, neighbours, places) {
  const none = (text) => ({ id: text, x: null, y: null, label: null });
  if (places.refused) return { here: none(id), near: neighbours.map(({ id: other }) => none(String(other))), classes: [] };
  const all = [id, ...neighbours.map((near) => String(near.id))].map((text, index) =>
    ({ id: text, x: places.x[index], y: places.y[index], label: places.label[index] }));
  return { here: all[0], near: all.slice(1), classes: places.classes };
}

/** Show a node that :func:`fetchNode` returned. */
export function showNode(node) {
  byId("node-title").textContent = node.id;
  show(byId("hint"), false);
  show(byId("details"));
  showClass(node.here.label, node.classes);
  showPrediction(node.predicted, node.classes);
  showVector(node.vector);
  showNeighbours(node);
  const label = node.here.label === null ? "" : `, ${node.classes[node.here.label]}`;
  say(`Node ${node.id}${label}, ${node.neighbours.length} neighbours.`);
}

function showClass(label, classes) {
  const chip = byId("node-class");
  show(chip, label !== null);
  if (label === null) return;
  chip.replaceChildren(make("span", { class: "dot", style: { "--colour": classColour(label) } }), `labelled ${classes[label]}`);
}

/** Show that no node is chosen; `sentence` says why where one was asked for. */
export function showNoNode(title, sentence) {
  byId("node-title").textContent = title;
  byId("hint").firstElementChild.textContent = sentence;
  show(byId("hint"));
  show(byId("details"), false);
  show(byId("node-class"), false);
}
