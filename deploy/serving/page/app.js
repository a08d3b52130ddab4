// Puts the page together: what the address asks for is fetched and shown, and kept up to date.

import { Refusal, forgetToken, getBinary, getText, hasToken } from "/page/api.js";
import { addressOf, readAddress } from "/page/address.js";
import { alertUser, byId, make, show } from "/page/dom.js";
import { Chart } from "/page/map.js";
import { focusFirst, startNeighbours } from "/page/neighbours.js";
import { fetchNode, showNoNode, showNode } from "/page/node.js";
import { Points } from "/page/points.js";
import { showRequests } from "/page/requests.js";
import { canPredict, fetchTables, showState, showTables } from "/page/tables.js";
import { onTheme, startTheme } from "/page/theme.js";

const REFRESH_MS = 5000;

const state = { wanted: readAddress(), node: null, version: undefined, fetching: null, unreachable: false, predicts: false };
const chart = new Chart((id) => go({ id }));

/** Go to another address, and show what it asks for. */
function go(change, { byKey = false } = {}) {
  state.wanted = { ...state.wanted, ...change };
  history.pushState(null, "", addressOf(state.wanted));
  return open({ byKey });
}

/** Show what `state.wanted` asks for; a request that is still under way for something else is given up. */
async function open({ byKey = false } = {}) {
  const { id, k, metric } = state.wanted;
  byId("query").value = id ?? "";
  byId("k").value = String(k);
  byId("metric").value = metric;
  document.title = id === null ? "graphsys" : `${id} - graphsys`;
  state.fetching?.abort();
  state.fetching = new AbortController();
  if (id === null) return leave("No node chosen", "Search for an id, or press a point on the map.");
  byId("node").setAttribute("aria-busy", "true");
  try {
    const node = await fetchNode(id, { k, metric, predicts: state.predicts, signal: state.fetching.signal });
    alertUser("");
    if (node === null) return leave("No such node", `The active table holds no node with the id “${id}”.`);
    state.node = node;
    state.predicts &&= !node.predicted.refused; // a network without classes is asked once
    showNode(node);
    chart.mark(node.here, node.near);
    if (byKey && !focusFirst()) byId("node-title").focus();
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
    else return;
  }
  byId("node").setAttribute("aria-busy", "false");
}

function leave(title, sentence) {
  state.node = null;
  showNoNode(title, sentence);
  chart.mark(null, []);
  byId("node").setAttribute("aria-busy", "false");
  byId("said").textContent = state.wanted.id === null ? "" : sentence;
}

function fail(error) {
  state.unreachable = error instanceof Refusal && error.status === 0;
  if (state.unreachable) showState("unreachable", "unreachable");
  alertUser(error.message);
}

/** Fetch and draw the map of a table. */
async function drawMap(version) {
  try {
    const points = new Points(await getBinary(`/v1/tables/${version}/map`));
    await chart.draw(points);
    suggest(points);
    if (state.node) chart.mark(state.node.here, state.node.near);
  } catch (error) {
    if (error instanceof Refusal && error.status === 0) throw error;
    chart.clear(error.message);
  }
}

/** Name a few ids to begin with. */
function suggest(points) {
  const ids = [0.1, 0.37, 0.62, 0.9].map((share) => points.id(Math.floor(share * points.size)));
  const known = points.size === 0 ? [] : [...new Set(ids)];
  byId("examples").replaceChildren(...known.map((id) => {
    const link = make("a", { href: addressOf({ ...state.wanted, id }), class: "code" }, id.length > 20 ? `${id.slice(0, 20)}…` : id);
    link.addEventListener("click", (event) => { if (!event.ctrlKey && !event.metaKey && !event.shiftKey) { event.preventDefault(); go({ id }); } });
    return link;
  }));
  show(byId("examples-line"), known.length > 0);
}

/** Read the tables and the figures; where another table became active, show everything anew. */
async function refresh() {
  try {
    const tables = await fetchTables();
    const figures = await getText("/metrics");
    showTables(tables, () => refresh());
    showRequests(figures);
    show(byId("forget"), hasToken());
    if (state.unreachable) {
      state.unreachable = false;
      alertUser("");
    }
    if (tables.active !== state.version) {
      state.version = tables.active;
      state.predicts = canPredict(tables);
      if (tables.active === null) chart.clear("No table is active yet.");
      else await Promise.all([drawMap(tables.active), open()]);
    }
  } catch (error) {
    fail(error);
  }
}

async function refreshForEver() {
  await refresh();
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, REFRESH_MS));
    if (!document.hidden) await refresh();
  }
}

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = byId("query").value.trim();
  go({ id: id === "" ? null : id });
});
byId("query").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" && focusFirst()) event.preventDefault();
});
byId("k").addEventListener("change", (event) => go({ k: Number(event.target.value) }));
byId("metric").addEventListener("change", (event) => go({ metric: event.target.value }));
byId("forget").addEventListener("click", () => { forgetToken(); location.reload(); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
  event.preventDefault();
  byId("query").focus();
  byId("query").select();
});
// No submit button, or Enter in a field would mean it.
for (const cancel of document.querySelectorAll("dialog button[value=no]")) cancel.addEventListener("click", () => cancel.closest("dialog").close("no"));
addEventListener("popstate", () => { state.wanted = readAddress(); open(); });

startNeighbours((id, byKey) => go({ id }, { byKey }), (id) => chart.stress(id));
startTheme();
onTheme(() => { if (state.node) showNode(state.node); });
refreshForEver();
