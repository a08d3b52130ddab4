// The map: points by class, drawn in a frame, and over them the chosen node with its neighbours.

import { byId, count, make, show } from "/page/dom.js";
import { PlotFrame } from "/page/frame.js";
import { Legend } from "/page/legend.js";
import { classColour, isDark, onTheme } from "/page/theme.js";
import { View } from "/page/view.js";

const KEYS = {
  ArrowLeft: (view) => view.move(-0.1, 0), ArrowRight: (view) => view.move(0.1, 0),
  ArrowUp: (view) => view.move(0, 0.1), ArrowDown: (view) => view.move(0, -0.1),
  "+": (view) => view.zoom(1.4), "=": (view) => view.zoom(1.4), "-": (view) => view.zoom(1 / 1.4), 0: (view) => view.all(),
};

export class Chart {
  /** `onOpen(id)` is called for a point that is pressed. */
  constructor(onOpen) {
    this.box = byId("canvas");
    this.points = null;
    this.marked = null; // {here: {x, y}, near: [{x, y, id}]}
    this.legend = new Legend((label) => this.isolate(label));
    this.frame = new PlotFrame({
      moved: ({ x, y }) => { this.view?.follow(x, y); this.placeMarks(); },
      hover: (at) => this.hover(at),
      unhover: () => show(byId("tip"), false),
      click: (at) => onOpen(this.points.id(this.pointOf(at))),
      key: ({ key, plain }) => { if (plain) this.box.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true })); },
    });
    this.listen();
    onTheme(() => this.recolour());
  }

  listen() {
    byId("zoom-in").addEventListener("click", () => this.change((view) => view.zoom(1.6)));
    byId("zoom-out").addEventListener("click", () => this.change((view) => view.zoom(1 / 1.6)));
    byId("zoom-all").addEventListener("click", () => this.change((view) => view.all()));
    this.box.addEventListener("keydown", (event) => {
      if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.change(KEYS[event.key]);
    });
    new ResizeObserver(() => this.resize()).observe(this.box);
  }

  /** Draw other points. */
  async draw(points) {
    const groups = points.groups();
    const view = new View(points.bounds(), this.box.clientWidth, this.box.clientHeight);
    const { x, y } = points.columns;
    const traces = groups.map(({ label, points: chosen }) => ({
      x: Float32Array.from(chosen, (point) => x[point]), y: Float32Array.from(chosen, (point) => y[point]), colour: classColour(label),
    }));
    await this.frame.load();
    this.scheme();
    const ms = await this.frame.draw(traces, markerFor(points.size), view.seen());
    Object.assign(this, { points, groups, view });
    show(byId("map-empty"), points.size === 0);
    byId("map-empty").textContent = "The table has no rows that could be placed.";
    this.legend.show(groups, points.header.classes);
    this.placeMarks();
    this.resize();
    byId("map-note").textContent = describe(points.header);
    Object.assign(this.box.dataset, { points: String(points.size), ms: ms.toFixed(0) }); // for whoever waits until it is drawn
  }

  /** Show a sentence in place of a map. */
  clear(sentence) {
    if (this.points) this.frame.send({ kind: "clear" });
    this.points = null;
    this.legend.show([], []);
    byId("map-note").textContent = "";
    byId("map-empty").textContent = sentence;
    show(byId("map-empty"));
    this.placeMarks();
  }

  pointOf({ group, index }) {
    return this.groups[group].points[index];
  }

  hover(at) {
    if (!this.points) return;
    const tip = byId("tip"), id = this.points.id(this.pointOf(at)), { label } = this.groups[at.group];
    const [left, top] = this.view.pixel(at.x, at.y);
    tip.textContent = label < 0 ? id : `${id}, ${this.points.header.classes[label]}`;
    show(tip);
    tip.style.left = `${Math.min(left + 12, this.view.width - tip.offsetWidth - 4)}px`;
    tip.style.top = `${Math.max(top - tip.offsetHeight - 8, 4)}px`;
  }

  change(how) {
    if (!this.points) return;
    how(this.view);
    show(byId("tip"), false);
    this.frame.send({ kind: "view", view: this.view.seen() });
    this.placeMarks();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.box;
    if (this.points && (width !== this.view.width || height !== this.view.height)) this.change((view) => view.resize(width, height));
  }

  recolour() {
    if (!this.points) return;
    this.scheme();
    this.frame.send({ kind: "colours", colours: this.groups.map(({ label }) => classColour(label)) });
    this.legend.show(this.groups, this.points.header.classes);
  }

  /** A frame is seen through only where its colour scheme is the page's. */
  scheme() {
    this.frame.send({ kind: "scheme", scheme: isDark() ? "dark" : "light" });
  }

  /** Show one class alone; null shows all. */
  isolate(label) {
    if (this.points) this.frame.send({ kind: "visible", visible: this.groups.map((group) => label === null || group.label === label) });
  }

  /** Mark a node and its neighbours: places are {x, y, id}, x is null where there is none. */
  mark(here, near) {
    this.marked = here === null ? null : { here, near: near.filter(({ x }) => x !== null) };
    if (this.points && here !== null && here.x !== null && !this.view.holds(here.x, here.y)) this.change((view) => view.centre(here.x, here.y));
    this.placeMarks();
  }

  /** Stress the neighbour that has the focus. */
  stress(id) {
    for (const ring of byId("marks").querySelectorAll(".near-ring")) ring.classList.toggle("focused", ring.dataset.id === id);
  }

  placeMarks() {
    const marks = byId("marks");
    marks.replaceChildren();
    if (!this.points || this.marked === null) return;
    const { here, near } = this.marked, at = ({ x, y }) => this.view.pixel(x, y);
    const circle = (place, r, kind) => make("svg:circle", { cx: place[0], cy: place[1], r, class: kind });
    if (here.x !== null) {
      const from = at(here);
      marks.append(...near.map((other) => { const to = at(other); return make("svg:line", { x1: from[0], y1: from[1], x2: to[0], y2: to[1] }); }));
    }
    for (const other of near) {
      const ring = circle(at(other), 5, "near-ring");
      ring.dataset.id = other.id;
      marks.append(circle(at(other), 5, "near-mark"), ring);
    }
    if (here.x !== null) marks.append(circle(at(here), 6, "here-mark"), circle(at(here), 10, "here-ring"));
  }
}

function markerFor(size) {
  if (size > 50000) return { size: 3, opacity: 0.7 };
  return size > 5000 ? { size: 4.5, opacity: 0.75 } : { size: 6.5, opacity: 0.8 };
}

function describe({ num_points: drawn, num_rows: rows, method, explained }) {
  const which = drawn === rows ? `${count(rows)} nodes` : `${count(drawn)} of ${count(rows)} nodes`;
  if (method !== "pca") return `${which}, ${method.toUpperCase()}`;
  const share = explained.reduce((sum, part) => sum + part, 0);
  return `${which}, two principal axes, ${Math.round(share * 100)} % of the variance`;
}
