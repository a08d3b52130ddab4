// The classes of the map: which colour is which, and one alone when it is pressed.

import { brief, byId, make } from "/page/dom.js";
import { classColour } from "/page/theme.js";

export class Legend {
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.chosen = null;
  }

  /** Show a button per class; the last is for nodes without one. */
  show(groups, names) {
    const list = byId("legend");
    list.hidden = names.length === 0;
    list.replaceChildren(...(names.length === 0 ? [] : groups.toSorted((a, b) => (a.label < 0) - (b.label < 0) || a.label - b.label).map((group) => make("li", {}, this.button(group, names)))));
    if (!groups.some(({ label }) => label === this.chosen)) this.chosen = null;
  }

  button({ label, points }, names) {
    const button = make("button", { type: "button", "aria-pressed": String(this.chosen === label) },
      make("span", { class: "dot", style: { "--colour": classColour(label) } }),
      label < 0 ? "no class" : names[label],
      make("span", { class: "count" }, brief(points.length)));
    button.addEventListener("click", () => {
      this.chosen = this.chosen === label ? null : label;
      for (const other of byId("legend").querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button && this.chosen !== null));
      this.onChoose(this.chosen);
    });
    return button;
  }
}
