// Colours: as the system says, or as chosen here; and the colours of classes.

import { byId } from "/page/dom.js";

const KEY = "graphsys-theme";
const ORDER = ["system", "light", "dark"];
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set();

const LIGHT = ["#2f6fb5", "#c26a00", "#1f8a5f", "#b0449e", "#c8402a", "#5d62d2", "#0b8796", "#8a6d12", "#7d4bb8", "#5d7f10", "#c02a68", "#66727f"];
const DARK = ["#6ba6ea", "#eda13c", "#4fc493", "#dd85cd", "#f57f66", "#9a9ef5", "#3fc1cf", "#cdb04e", "#b691ea", "#a3c653", "#f07ba8", "#98a4b1"];

let chosen = ORDER.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "system";

export const isDark = () => (chosen === "system" ? system.matches : chosen === "dark");

/** The colour of a class; what has none is grey. */
export function classColour(index) {
  const colours = isDark() ? DARK : LIGHT;
  if (index < 0) return isDark() ? "#7d8996" : "#8b95a3";
  if (index < colours.length) return colours[index];
  // Further hues in golden steps, so that neighbours in number differ.
  const hue = ((index - colours.length) * 137.508 + 20) % 360;
  return isDark() ? `hsl(${hue.toFixed(0)}, 62%, 68%)` : `hsl(${hue.toFixed(0)}, 60%, 40%)`;
}

/** Call `listener` whenever the colours changed. */
export function onTheme(listener) {
  listeners.add(listener);
}

export function startTheme() {
  const apply = () => {
    if (chosen === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    byId("theme").setAttribute("aria-label", `Colours: ${chosen === "system" ? "as the system" : chosen}`);
    byId("theme").title = byId("theme").getAttribute("aria-label");
    for (const listener of listeners) listener();
  };
  byId("theme").addEventListener("click", () => {
    // The first press always changes what is seen.
    const order = system.matches ? ["system", "light", "dark"] : ["system", "dark", "light"];
    chosen = order[(order.indexOf(chosen) + 1) % order.length];
    localStorage.setItem(KEY, chosen);
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}
