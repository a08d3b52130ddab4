// The tables that the server knows: which one is active, what it comes from, and how another becomes active.

import { getJson, postJson } from "/page/api.js";
import { alertUser, byId, count, make, say } from "/page/dom.js";

const STATES = { known: "not loaded", loading: "loading", active: "active", retiring: "retiring", refused: "refused" };

export const fetchTables = () => getJson("/v1/tables");

/** Whether the network behind the active table is at hand, so that it can be asked for predictions. */
export function canPredict({ active, tables }) {
  const model = tables.find(({ version }) => version === active)?.provenance?.model;
  return model !== undefined && model !== "none";
}

/** Show the active table's facts in the head, its origin, and the list of all. */
export function showTables({ active, tables }, onActivated) {
  const table = tables.find(({ version }) => version === active) ?? null;
  byId("fact-version").textContent = active ?? "none";
  byId("fact-rows").textContent = table ? count(table.num_rows) : "–";
  byId("fact-dim").textContent = table ? count(table.dim) : "–";
  showState(table ? table.state : "none active", table ? table.state : "");
  showOrigin(table);
  keepingFocus(byId("tables"), () => byId("tables").replaceChildren(...tables.map((listed) => row(listed, active, onActivated))));
}

export function showState(text, kind) {
  byId("fact-state").textContent = text;
  byId("fact-state").className = `chip ${kind}`;
}

/** Replace a list's content; the button that had the focus has it again. */
function keepingFocus(list, replace) {
  const version = list.contains(document.activeElement) ? document.activeElement.dataset.version : undefined;
  replace();
  if (version !== undefined) [...list.querySelectorAll("button")].find((button) => button.dataset.version === version)?.focus();
}

function row(table, active, onActivated) {
  const { version, state, num_rows: rows, dim, path, error } = table;
  const chip = make("span", { class: `chip ${state}` }, STATES[state] ?? state);
  const button = make("button", { type: "button", class: "plain", "data-version": version, "aria-label": `Activate ${version}`, disabled: state === "loading" }, "Activate");
  button.addEventListener("click", () => activate(table, onActivated));
  return make("li", {},
    make("span", { class: "code" }, version), chip,
    make("span", { class: "path" }, `${count(rows)} rows of ${count(dim)}, ${path}`),
    version === active ? "" : button,
    error ? make("span", { class: "why" }, `Refused when it was last loaded: ${error}`) : "");
}

async function activate({ version, num_rows: rows, dim }, onActivated) {
  byId("confirm-text").textContent = `Requests will be answered from ${version} (${count(rows)} rows of ${count(dim)} numbers) once it is loaded. Those under way end with the table they began with.`;
  const dialog = byId("confirm");
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "yes") return;
  alertUser("");
  say(`Loading ${version}.`);
  try {
    await postJson(`/v1/tables/${encodeURIComponent(version)}/activate`, {});
    say(`${version} is active.`);
  } catch (error) {
    alertUser(error.message);
  }
  onActivated();
}

function showOrigin(table) {
  const pairs = table === null ? [] : facts(table);
  byId("origin").replaceChildren(...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function facts({ provenance, node_type: type, dtype, path }) {
  const known = provenance ?? {}, parents = known.parents ?? {};
  const code = (value) => make("span", { class: "code", title: value }, value.length > 24 ? `${value.slice(0, 12)}…` : value);
  const with_path = (print, file) => (file ? [make("span", {}, file), " ", code(print)] : [code(print)]);
  const join = (...parts) => { const box = document.createDocumentFragment(); box.append(...parts); return box; };
  const pairs = [["Table", path]];
  if (known.written) pairs.push(["Written", when(known.written)]);
  if (known.run) pairs.push(["Run", known.run]);
  if (parents.store) pairs.push(["Store", join(...with_path(parents.store, known.store))]);
  if (parents.checkpoint) pairs.push(["Checkpoint", join(...with_path(parents.checkpoint, known.checkpoint))]);
  if (known.network) pairs.push(["Network", known.network]);
  pairs.push(["Vectors", `${dtype}, output of layer ${known.layer} for nodes of type “${type}”`]);
  return pairs;
}

function when(text) {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? text : time.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}
