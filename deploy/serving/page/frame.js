// The page's side of the frame in which the map is drawn; see plot.js.

const NO_WEBGL = "The map needs WebGL, which this browser does not offer or has switched off. Everything else works without it.";
const LOAD_MS = 60000;

export class PlotFrame {
  /** `on` has a function for each kind of message: moved, hover, unhover, click, key. */
  constructor(on) {
    this.on = on;
    this.drawing = null; // {resolve, reject} of the drawing under way
    this.ready = null;
    this.element = document.getElementById("plot");
  }

  /** Load the frame, once. */
  load() {
    this.ready ??= new Promise((resolve, reject) => {
      this.opening = { resolve, reject };
      setTimeout(() => reject(new Error("The map's program could not be loaded. Reload the page.")), LOAD_MS);
      addEventListener("message", ({ source, data }) => { if (source === this.element.contentWindow) this.hear(data); });
      this.element.src = "/page/plot.html";
    });
    return this.ready;
  }

  hear(message) {
    if (message.kind === "ready") this.opening.resolve();
    else if (message.kind === "drawn") this.drawing?.resolve(message.ms);
    else if (message.kind === "failed") {
      const error = new Error(message.why === "no WebGL" ? NO_WEBGL : `The map could not be drawn: ${message.why}.`);
      this.opening.reject(error);
      this.drawing?.reject(error);
    } else this.on[message.kind]?.(message);
  }

  /** Draw groups of points [{x, y, colour}]; returns the milliseconds it took. The coordinates are handed over. */
  async draw(groups, marker, view) {
    await this.load();
    const drawn = new Promise((resolve, reject) => { this.drawing = { resolve, reject }; });
    this.send({ kind: "draw", groups, marker, view }, groups.flatMap(({ x, y }) => [x.buffer, y.buffer]));
    return drawn;
  }

  /** Send a message; the frame has no origin that could be named, and gets nothing that is worth keeping from others. */
  send(message, handed = []) {
    this.element.contentWindow.postMessage(message, "*", handed);
  }
}
