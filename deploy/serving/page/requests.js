// What the server counts of its requests, read from /metrics every few seconds while the page is seen.

import { byId, count, duration, make } from "/page/dom.js";

const WINDOW_S = 60, KEPT = 61; // seconds that figures speak of; samples kept for the line
const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
const samples = [];

/** Read Prometheus' text; returns [{name, labels, value}]. */
export function readFigures(text) {
  return text.split("\n").flatMap((line) => {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) return [];
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value]));
    return [{ name: found[1], labels, value: Number(found[3]) }];
  });
}

/** Sum up one reading: how many requests for data were answered, failed, and how long they took, by bucket. */
function sample(text, now) {
  const figures = readFigures(text), buckets = new Map();
  let [total, failed, inFlight, active] = [0, 0, 0, "none"];
  for (const { name, labels, value } of figures) {
    const data = labels.route?.startsWith("/v1/");
    if (name === "graphsys_requests_total" && data) {
      total += value;
      if (labels.status >= "400") failed += value;
    } else if (name === "graphsys_request_seconds_bucket" && data) {
      const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
      buckets.set(bound, (buckets.get(bound) ?? 0) + value);
    } else if (name === "graphsys_requests_in_flight") inFlight = value;
    else if (name === "graphsys_active_table" && value === 1) active = labels.version;
  }
  return { now, total, failed, inFlight, active, buckets };
}

/** Seconds within which a share of the requests between two samples was answered; null without any. */
export function quantile(share, before, after) {
  const bounds = [...after.buckets.keys()].sort((a, b) => a - b);
  const counts = bounds.map((bound) => after.buckets.get(bound) - (before.buckets.get(bound) ?? 0));
  const wanted = share * (counts.at(-1) ?? 0);
  if (wanted === 0) return null;
  const at = counts.findIndex((value) => value >= wanted);
  const low = at === 0 ? 0 : bounds[at - 1], under = at === 0 ? 0 : counts[at - 1];
  if (bounds[at] === Infinity) return low;
  return low + (bounds[at] - low) * (wanted - under) / (counts[at] - under);
}

export function showRequests(text) {
  const last = sample(text, performance.now() / 1e3);
  if (samples.length > 0 && samples.at(-1).total > last.total) samples.length = 0; // the server was started anew
  samples.push(last);
  if (samples.length > KEPT) samples.shift();
  const first = samples.find(({ now }) => last.now - now <= WINDOW_S + 2) ?? last;
  const seconds = last.now - first.now;
  byId("rate").textContent = seconds > 0 ? rateText((last.total - first.total) / seconds) : "–";
  byId("p50").textContent = duration(quantile(0.5, first, last));
  byId("p99").textContent = duration(quantile(0.99, first, last));
  byId("in-flight").textContent = count(Math.max(0, last.inFlight - 1)); // this reading is one itself
  byId("total").textContent = count(last.total);
  byId("failed").textContent = count(last.failed);
  byId("answering").textContent = last.active;
  drawLine();
}

const rateText = (rate) => (rate >= 100 ? count(Math.round(rate)) : rate.toFixed(rate >= 10 ? 0 : 1));

function drawLine() {
  const rates = samples.slice(1).map((after, index) => (after.total - samples[index].total) / Math.max(after.now - samples[index].now, 1e-3));
  const top = Math.max(...rates, 1e-9), step = 120 / (KEPT - 2), start = 120 - (rates.length - 1) * step;
  const path = rates.map((rate, index) => `${index ? "L" : "M"}${(start + index * step).toFixed(1)} ${(23 - 21 * rate / top).toFixed(1)}`).join("");
  byId("spark").replaceChildren(make("svg:line", { x1: 0, x2: 120, y1: 23.5, y2: 23.5 }), make("svg:path", { d: path }));
}
