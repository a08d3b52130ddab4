// The page's address says what is shown, so that it can be shared, and so that "back" goes back.

const METRICS = ["cosine", "dot", "l2"];
const NUMBERS = [5, 10, 20, 50];
export const DEFAULT = { k: 10, metric: "cosine" };

/** What the address asks for: {id or null, k, metric}; what makes no sense in it is as if it were not there. */
export function readAddress() {
  const wanted = new URLSearchParams(location.search);
  const k = Number(wanted.get("k")), metric = wanted.get("metric");
  return {
    id: wanted.get("id")?.slice(0, 1000) || null,
    k: NUMBERS.includes(k) ? k : DEFAULT.k,
    metric: METRICS.includes(metric) ? metric : DEFAULT.metric,
  };
}

export function addressOf({ id, k, metric }) {
  const wanted = new URLSearchParams();
  if (id !== null) wanted.set("id", id);
  if (k !== DEFAULT.k) wanted.set("k", String(k));
  if (metric !== DEFAULT.metric) wanted.set("metric", metric);
  const text = wanted.toString();
  return text === "" ? "/" : `/?${text}`;
}
