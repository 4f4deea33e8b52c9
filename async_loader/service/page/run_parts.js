// The pieces of a run's view, each made of the run and its latest snapshot.
import { count, elapsed, milliseconds } from "./charts.js";
import { get } from "./api.js";
import { $, el, replace, say, svg } from "./dom.js";
import { moment, share } from "./words.js";

const PARTS = [
  ["pool_wait", "pool wait"], ["connect", "connect"], ["ping", "ping"], ["database", "database"],
  ["orm", "ORM"], ["application", "app"], ["elsewhere", "elsewhere"], ["loop_queue", "loop queue"],
];
const MOST_LINES = 8;
const FORMS = [["html", "Report"], ["json", "JSON"], ["xml", "JUnit"], ["md", "Markdown"]];

/** What a run that has ended has done. */
export function summary({ figures }) {
  if (!figures) return "";
  const { completed, seconds } = figures;
  return `${count(completed)} operations in ${elapsed(seconds < 10 ? +seconds.toFixed(2) : Math.round(seconds))}`;
}

export function subject(run) {
  const load = run.figures ? `, let in by ${run.figures.load}` : "";
  const by = run.scheduled ? "by its schedule" : `by ${run.started_by}`;
  return `${run.scenario} on ${run.target}${load}. Run ${run.id}, started ${moment(run.started_at)} ${by}.`;
}

export function items(texts) {
  return texts.map((text) => el("li", {}, text));
}

/** The figures to see at a glance: of the result, or so far; throughput of the latest second. */
export function tiles(run, snapshot) {
  const figures = run.figures ?? snapshot;
  if (!figures) return [];
  const bad = run.figures ? run.figures.failed + run.figures.indeterminate : snapshot.bad;
  const rate = run.figures ? run.figures.throughput : snapshot.rate;
  const found = [
    tile("throughput", rate, `${count(rate)} ops/s`),
    ...["p50", "p95", "p99"].map((name) => {
      const ms = figures.completed ? figures[`${name}_ms`] : null;
      return tile(name, ms, milliseconds(ms), { label: run.figures ? name : `${name} so far` });
    }),
    tile("completed", figures.completed, count(figures.completed)),
    tile("failed", bad, `${count(bad)} ${bad && run.figures ? share(run.figures.error_rate) : ""}`, { isBad: bad > 0 }),
  ];
  if (figures.dropped) found.push(tile("dropped", figures.dropped, count(figures.dropped), { isBad: true }));
  if (!run.figures && snapshot.in_use != null) {
    found.push(tile("connections", snapshot.in_use, count(snapshot.in_use)));
    found.push(tile("waiting for one", snapshot.waiting, count(snapshot.waiting)));
  }
  return found;
}

/** A figure with its unit, and exactly as the service says it in its element's value. */
function tile(name, value, text, { isBad = false, label = name } = {}) {
  const [number, unit] = text.split(" ");
  const shown = el("data", { value: String(value) }, number);
  const content = unit ? [shown, el("small", {}, unit)] : [shown];
  return el("div", { class: isBad ? "bad" : null, "data-figure": name }, el("dt", {}, label), el("dd", {}, content));
}

/** Where the time of all operations so far went. */
export function showSplit(place, snapshot) {
  const spent = snapshot?.time_split;
  const total = spent && Object.values(spent).reduce((sum, seconds) => sum + seconds, 0);
  place.hidden = !total;
  if (!total) return;
  let x = 0;
  const shown = PARTS.filter(([part]) => spent[part] > 0.005 * total);
  const rects = shown.map(([part]) => {
    const width = (100 * spent[part]) / total;
    x += width;
    return svg("rect", { class: part, x: x - width, width, height: 10 });
  });
  const bar = svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, ...rects);
  const legend = shown.map(([part, label]) => {
    const each = milliseconds((1000 * spent[part]) / Math.max(1, snapshot.completed));
    const key = el("span", { class: `key ${part}` });
    return el("li", {}, key, `${label} `, el("b", {}, each), ` ${Math.round((100 * spent[part]) / total)}%`);
  });
  const note = el("p", { class: "note" }, "Mean of one operation.");
  replace($(".whole", place), note, bar, el("ul", { class: "keys" }, legend));
}

export function showErrors(place, snapshot) {
  const errors = Object.entries(snapshot?.errors ?? {});
  place.hidden = !errors.length;
  const rows = errors.map(([name, times]) =>
    el("tr", {}, el("th", { scope: "row", class: "text" }, name), el("td", {}, count(times))),
  );
  replace($("tbody", place), rows);
}

/** What it ran with; what was overridden is marked. */
export function showSettings(place, run) {
  if (place.dataset.run === String(run.id)) return;
  place.dataset.run = run.id;
  place.hidden = false;
  const told = ([, value]) => value != null && value !== "" && !(Array.isArray(value) && !value.length);
  const rows = Object.entries(run.settings).filter(told).map(([name, value]) => {
    const text = Array.isArray(value) ? value.join(", ") : String(value);
    const mark = Object.hasOwn(run.overrides, name) ? el("small", { class: "note" }, " overridden") : null;
    return el("tr", {}, el("th", { scope: "row", class: "text" }, name), el("td", { class: "text" }, text, mark));
  });
  replace($("tbody", place), rows);
}

/** The forms of its report, and the run before it to compare it with. */
export async function showResultLinks(place, run) {
  const links = FORMS.map(([suffix, text]) => el("a", { href: `api/runs/${run.id}/report.${suffix}` }, text));
  const compare = el("a", { class: "button", hidden: true }, "");
  replace(place, compare, links);
  const asked = new URLSearchParams({ scenario: run.scenario, target: run.target, before: run.id, limit: 20 });
  const { runs } = await get(`api/runs?${asked}`);
  const before = runs.find((each) => each.figures);
  if (!before) return;
  compare.href = `compare?run=${before.id}&run=${run.id}`;
  compare.hidden = false;
  say(compare, `Compare with run ${before.id}`);
}

/** The operations of a run, to choose one where there are more than a chart has lines. */
export function operations(drawn) {
  const names = Object.keys(drawn.percentiles).filter((name) => name);
  if (names.length < MOST_LINES) return [];
  return [["", "all operations"], ...names.map((name) => [name, name])];
}
