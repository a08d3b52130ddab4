// Inside the frame of the map: draws what the page sends, and tells it what happens here.
//
// Plotly makes functions from text, which the page's own policy forbids; so it runs here, in a frame without an origin:
// it reaches no network, no token and nothing of the page. What passes between the two are coordinates and colours.
"use strict";

(() => {
  const CONFIG = { displayModeBar: false, scrollZoom: true, responsive: false, doubleClick: false, showTips: false, plotGlPixelRatio: devicePixelRatio };
  const CLEAR = "rgba(0,0,0,0)";
  const plot = document.getElementById("plot");
  const tell = (message) => parent.postMessage(message, "*");

  const axis = (range) => ({ visible: false, range, autorange: false, fixedrange: false });

  async function draw({ groups, marker, view }) {
    const traces = groups.map(({ x, y, colour }) => ({
      type: "scattergl", mode: "markers", hoverinfo: "none", showlegend: false, x, y, marker: { ...marker, color: colour, line: { width: 0 } },
    }));
    const layout = {
      width: view.width, height: view.height, margin: { l: 0, r: 0, t: 0, b: 0 }, dragmode: "pan", hovermode: "closest", hoverdistance: 12,
      paper_bgcolor: CLEAR, plot_bgcolor: CLEAR, xaxis: axis(view.x), yaxis: axis(view.y),
    };
    const before = performance.now();
    await Plotly.newPlot(plot, traces, layout, CONFIG);
    listen();
    tell({ kind: "drawn", ms: performance.now() - before });
  }

  function listen() {
    const follow = (change) => {
      const range = (name) => change[`${name}.range`] ?? [change[`${name}.range[0]`], change[`${name}.range[1]`]];
      const [x, y] = [range("xaxis"), range("yaxis")];
      if ([...x, ...y].every(Number.isFinite)) tell({ kind: "moved", x, y });
    };
    const place = ({ curveNumber: group, pointNumber: index, x, y }) => ({ group, index, x, y });
    plot.on("plotly_relayouting", follow);
    plot.on("plotly_relayout", follow);
    plot.on("plotly_hover", ({ points }) => tell({ kind: "hover", ...place(points[0]) }));
    plot.on("plotly_unhover", () => tell({ kind: "unhover" }));
    plot.on("plotly_click", ({ points }) => tell({ kind: "click", ...place(points[0]) }));
  }

  const deeds = {
    draw,
    view: ({ view }) => Plotly.relayout(plot, { width: view.width, height: view.height, "xaxis.range": view.x, "yaxis.range": view.y }),
    colours: ({ colours }) => Plotly.restyle(plot, { "marker.color": colours }),
    visible: ({ visible }) => Plotly.restyle(plot, { visible }),
    scheme: ({ scheme }) => { document.documentElement.style.colorScheme = scheme; },
    clear: () => Plotly.purge(plot),
  };

  addEventListener("message", async ({ source, data }) => {
    if (source !== parent) return;
    try {
      await deeds[data.kind](data);
    } catch (error) {
      tell({ kind: "failed", why: String(error) });
    }
  });
  addEventListener("keydown", (event) => {
    tell({ kind: "key", key: event.key, plain: !(event.ctrlKey || event.metaKey || event.altKey) });
    if (["/", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"].includes(event.key)) event.preventDefault();
  });
  tell(window.Plotly && document.createElement("canvas").getContext("webgl") ? { kind: "ready" } : { kind: "failed", why: "no WebGL" });
})();
