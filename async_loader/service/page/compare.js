// The page of two runs: what changed from one to the other, and both on the same axes.
import { get, persistently } from "./api.js";
import { CHARTS, count, elapsed, milliseconds, perSecond } from "./charts.js";
import { $, el, head, options, replace, say, svg } from "./dom.js";
import { choose, makeFigure, show } from "./figure.js";
import { frame, showLine } from "./frame.js";
import { change, classOf, figure, moment, named, share, title } from "./words.js";

const choice = $("#choice");
const { before, after } = choice.elements;
const figures = {
  throughput: makeFigure("throughput", "Throughput"),
  latency: makeFigure("latency", "Latency over time", "operation", "figure"),
  connections: makeFigure("connections", "Connections"),
  percentiles: makeFigure("percentiles", "Latency by percentile", "operation"),
};
const FIGURES = ["p99", "p95", "p50"].map((name) => [name, name]);
const TONES = { worse: "bad", better: "good", "the same": "", "cannot tell": "warn" };
// Of both runs: name, figure, what makes a text of it, and where there is no room for it.
const FOUND = [
  ["throughput", "throughput", perSecond],
  ["p50", "p50_ms", milliseconds, "more"],
  ["p95", "p95_ms", milliseconds],
  ["p99", "p99_ms", milliseconds],
  ["errors", "error_rate", share, "more"],
  ["completed", "completed", count, "most"],
  ["lasted", "seconds", (seconds) => elapsed(+seconds.toFixed(1)), "most"],
];
const TOLD = [["run", "text tight"], ["state", "text tight"], ["scenario", "text more"], ["target", "text most"]];
const COLUMNS = [...TOLD, ["started", "text tight most"], ["load", "text most"], ...FOUND.map(([name, , , room]) => [name, room])];

/** The two runs that the address names. */
function asked() {
  const numbers = new URLSearchParams(location.search).getAll("run");
  return numbers.map(Number).filter((number) => Number.isInteger(number) && number > 0).slice(0, 2);
}

async function prepare() {
  const { runs } = await get("api/runs?limit=500");
  const known = runs.filter((run) => run.figures);
  const numbers = asked();
  const missing = numbers.filter((number) => !known.some((run) => run.id === number));
  for (const number of missing) await get(`api/runs/${number}`).then((run) => known.push(run), () => {});
  const values = known.map((run) => [String(run.id), named(run)]);
  for (const select of [before, after]) options(select, values, "choose a run");
  await look();
}

async function look() {
  const [first, second] = asked();
  before.value = first ?? "";
  after.value = second ?? "";
  say($("#refusal"), "");
  $("#compared").hidden = true;
  if (!second) return showLine("ready", Date.now());
  try {
    const found = await persistently(() => get(`api/compare?run=${first}&run=${second}`));
    if (String(asked()) === String([first, second])) render(found);
    showLine("ready", Date.now());
  } catch (problem) {
    say($("#refusal"), problem.message);
    if (!problem.status) showLine("lost", Date.now());
  }
}

function render({ runs, charts, answer, within, changes, differences }) {
  $("#compared").hidden = false;
  showVerdict(runs, answer, within, changes, differences);
  showFigures(runs);
  const [first, second] = runs.map((run) => [`run ${run.id}`, "most"]);
  const drawn = el("span", { class: "said" }, "interval, drawn");
  const columns = [["figure", "text"], ["answer", "text"], ["change"], ["95 % interval", "more"]];
  columns.push([drawn, "most"], first, second);
  replace($("#changes"), head(columns), el("tbody", {}, changes.map((each) => changeRow(each, reachOf(changes)))));
  drawAll(charts);
  const report = `api/compare/report.html?run=${runs[0].id}&run=${runs[1].id}`;
  replace($("#links"), el("a", { href: report }, "Report of both"));
}

/** The word that can be read across the room. */
function showVerdict(runs, answer, within, changes, differences) {
  const tones = { worse: "failed", better: "passed", "the same": "passed", "cannot tell": "stopped" };
  $("#verdict").className = `verdict ${tones[answer]}`;
  say($("#state"), inWords(answer, within));
  const having = (word) => changes.filter((each) => each.answer === word).length;
  const counts = Object.keys(TONES).map((word) => [having(word), word]).filter(([n]) => n).map(([n, word]) => `${n} ${word}`);
  say($("#sentence"), `Run ${runs[1].id} against run ${runs[0].id}, of ${changes.length} figures: ${counts.join(", ")}.`);
  replace($("#reasons"), differences.map((text) => el("li", {}, `Not the same: ${text}`)));
  document.title = `${$("#state").textContent}: runs ${runs[0].id} and ${runs[1].id}`;
}

/** An answer; what is the same is so within a tolerance. */
function inWords(answer, within) {
  return title(answer === "the same" ? `the same within ${+(100 * within).toFixed(2)} %` : answer);
}

function showFigures(runs) {
  replace($("#figures"), head(COLUMNS), el("tbody", {}, runs.map(runRow)));
}

function runRow(run) {
  const found = FOUND.map(([, key, text, room]) => {
    const value = run.figures[key];
    return el("td", { class: room }, el("data", { value: String(value), "data-figure": key }, text(value)));
  });
  return el(
    "tr", { "data-run": run.id },
    el("th", { scope: "row", class: "text tight" }, el("a", { href: `./?run=${run.id}` }, `run ${run.id}`)),
    el("td", { class: "text tight" }, el("span", { class: `word ${classOf(run.state)}` }, title(run.state))),
    el("td", { class: "text more" }, run.scenario),
    el("td", { class: "text most" }, run.target),
    el("td", { class: "text tight most" }, moment(run.started_at)),
    el("td", { class: "text most" }, run.figures.load),
    found,
  );
}

function changeRow(each, reach) {
  const { check, unit, answer, tolerance, low, high } = each;
  const tone = TONES[answer];
  const why = each.reason ? el("p", { class: "note" }, each.reason) : null;
  const interval = low == null ? "–" : `${change(low, unit)} to ${change(high, unit)}`;
  return el(
    "tr", { "data-check": check },
    el("th", { scope: "row", class: "text", title: check }, each.figure),
    el("td", { class: `text ${tone}` }, inWords(answer, tolerance), why),
    el("td", {}, change(each.change, unit)),
    el("td", { class: "more" }, interval),
    el("td", { class: "bar most" }, low == null ? null : drawnInterval(each, tone, reach)),
    el("td", { class: "most" }, figure(each.before, unit)),
    el("td", { class: "most" }, figure(each.now, unit)),
  );
}

/** How far the one axis of all intervals goes to either side. */
function reachOf(changes) {
  const ends = changes.filter(({ low }) => low != null).flatMap(({ low, high, tolerance }) => [-low, low, high, -high, 1.5 * tolerance]);
  return 1.1 * Math.max(1e-9, ...ends);
}

/** The interval around the change, on an axis with no change in its middle. */
function drawnInterval({ change: middle, low, high, tolerance }, tone, reach) {
  const at = (value) => 50 + (50 * value) / reach;
  const rect = (kind, x, width, y = 0, height = 10) => svg("rect", { class: kind, x, width, y, height });
  return svg(
    "svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    rect("zero", 49.8, 0.4),
    rect("tolerance", at(tolerance), 0.5),
    rect("tolerance", at(-tolerance), 0.5),
    rect(`interval ${tone}`, at(low), Math.max(0.6, at(high) - at(low)), 3, 4),
    rect("point", at(middle) - 0.5, 1, 1.5, 7),
  );
}

function drawAll(data) {
  const names = [...new Set(data.runs.flatMap((run) => Object.keys(run.percentiles)))].filter((name) => name);
  const operations = [["", "all operations"], ...names.map((name) => [name, name])];
  choose(figures.latency, "operation", operations);
  choose(figures.latency, "figure", FIGURES);
  choose(figures.percentiles, "operation", operations);
  const isThere = {
    throughput: true,
    latency: data.runs.some((run) => run.slices?.seconds.length > 1),
    connections: data.runs.some((run) => run.in_use.some((value) => value)),
    percentiles: names.length > 0 || data.runs.some((run) => Object.keys(run.percentiles).length),
  };
  for (const [name, each] of Object.entries(figures)) {
    each.hidden = !isThere[name];
    if (isThere[name]) show(each, (theme, choices) => CHARTS[name](data, theme, choices));
  }
}

function turnTo(first, second) {
  const numbers = [first, second].filter((number) => number);
  history.pushState(null, "", `?${new URLSearchParams(numbers.map((number) => ["run", number]))}`);
  look();
}

$("#charts").append(...Object.values(figures));
choice.addEventListener("submit", (event) => event.preventDefault());
choice.addEventListener("change", () => turnTo(before.value, after.value));
$("#swap").addEventListener("click", () => turnTo(after.value, before.value));
addEventListener("popstate", look);

frame(() => persistently(prepare));
