// The page of the history: runs by scenario, target and state, and two of them to compare.
import { get, persistently } from "./api.js";
import { count, elapsed, milliseconds, perSecond } from "./charts.js";
import { $, el, head, options, replace, say } from "./dom.js";
import { frame, showLine } from "./frame.js";
import { ACTIVE, STATES, classOf, moment, share, title } from "./words.js";

const LIMIT = 50;
const LOOK_MS = 5_000;
// What a narrow page has no room for is "most", what a phone has none for is "more".
const COLUMNS = [
  [el("span", { class: "said" }, "chosen"), "text tight"],
  ["run", "text tight"],
  ["state", "text tight"],
  ["scenario", "text"],
  ["target", "text more"],
  ["started", "text tight more"],
  ["lasted", "most"],
  ["throughput"],
  ["p50", "most"],
  ["p95"],
  ["p99", "more"],
  ["failed", "more"],
  ["by", "text most"],
];
const filter = $("#filter");
const fields = filter.elements;
const chosen = new Set();

let last = "";
let lastLook = Date.now();
let timer = 0;

function asked() {
  return new URLSearchParams(location.search);
}

async function look() {
  clearTimeout(timer);
  const query = asked();
  query.set("limit", LIMIT);
  try {
    const text = JSON.stringify(await get(`api/runs?${query}`));
    if (text !== last) render(JSON.parse(text));
    last = text;
    lastLook = Date.now();
    showLine("ready", lastLook);
  } catch (problem) {
    if (problem.status) say($("#chosen"), problem.message);
    else showLine("lost", lastLook);
  }
  clearTimeout(timer);
  timer = setTimeout(look, LOOK_MS);
}

function render({ runs, next }) {
  const rows = runs.map(rowOf);
  const none = el("tr", {}, el("td", { colspan: COLUMNS.length, class: "text note" }, "No such run."));
  replace($("#runs"), head(COLUMNS), el("tbody", {}, rows.length ? rows : none));
  const older = asked();
  older.set("before", next);
  const links = [];
  if (asked().has("before")) links.push(el("a", { href: hrefWithout("before"), class: "button" }, "Latest"));
  if (next) links.push(el("a", { href: `?${older}`, class: "button" }, "Older"));
  replace($("#pages"), links);
}

function hrefWithout(name) {
  const query = asked();
  query.delete(name);
  return `?${query}`;
}

function rowOf(run) {
  const figures = run.figures ?? {};
  const box = el("input", {
    type: "checkbox", id: `choose-${run.id}`, "aria-label": `Choose run ${run.id}`,
    disabled: !run.figures, onchange: (event) => choose(run.id, event.target.checked),
  });
  box.checked = chosen.has(run.id);
  const bad = run.figures ? figures.failed + figures.indeterminate : null;
  const numbers = [
    [elapsedOf(run), "most"],
    [perSecond(figures.throughput)],
    [milliseconds(figures.p50_ms), "most"],
    [milliseconds(figures.p95_ms)],
    [milliseconds(figures.p99_ms), "more"],
    [run.figures ? `${count(bad)}${bad ? ` (${share(figures.error_rate)})` : ""}` : "–", bad ? "bad more" : "more"],
  ];
  return el(
    "tr", { "data-run": run.id },
    el("td", { class: "text tight" }, box),
    el("th", { scope: "row", class: "text tight" }, el("a", { href: `./?run=${run.id}` }, String(run.id))),
    el("td", { class: "text tight", title: run.reasons.join("; ") }, el("span", { class: `word ${classOf(run.state)}` }, title(run.state)), doubtOf(run)),
    el("td", { class: "text" }, run.scenario),
    el("td", { class: "text more" }, run.target),
    el("td", { class: "text tight more" }, moment(run.started_at)),
    numbers.map(([text, kind]) => el("td", { class: kind }, text)),
    el("td", { class: "text most" }, run.scheduled ? "its schedule" : run.started_by),
  );
}

/** Of a run that passed: that its measurement is not good. */
function doubtOf({ state, figures }) {
  if (state !== "passed" || figures?.measurement !== "not good") return null;
  return el("p", { class: "note", title: figures.doubts.join("; ") }, "measurement not good");
}

function elapsedOf({ figures, started_at, ended_at, state }) {
  if (figures) return elapsed(figures.seconds < 10 ? +figures.seconds.toFixed(1) : Math.round(figures.seconds));
  if (ACTIVE.includes(state) || !ended_at) return "–";
  return elapsed(Math.round((new Date(ended_at) - new Date(started_at)) / 1000));
}

function choose(number, isChosen) {
  if (isChosen) chosen.add(number);
  else chosen.delete(number);
  $("#compare").disabled = chosen.size !== 2;
  const numbers = [...chosen].sort((a, b) => a - b);
  const texts = [
    "Choose two runs to compare them.",
    `Run ${numbers[0]} is chosen: choose another one.`,
    `Runs ${numbers[0]} and ${numbers[1]} are chosen.`,
  ];
  say($("#chosen"), texts[chosen.size] ?? `${chosen.size} runs are chosen: two are compared.`);
}

async function prepare() {
  const [{ scenarios }, { targets }] = await Promise.all([get("api/scenarios"), get("api/targets")]);
  const named = { scenario: scenarios, target: targets };
  for (const [name, values] of Object.entries(named)) {
    const names = values.map((each) => each.name);
    const now = asked().get(name);
    if (now && !names.includes(now)) names.push(now); // its file is gone, its runs are not
    options(fields[name], names, "all");
  }
  options(fields.state, STATES.map((state) => [state, title(state)]), "all");
  fill();
}

/** Show in the filter what the address asks for. */
function fill() {
  for (const name of ["scenario", "target", "state"]) fields[name].value = asked().get(name) ?? "";
}

filter.addEventListener("submit", (event) => event.preventDefault());
filter.addEventListener("change", () => {
  const given = ["scenario", "target", "state"].filter((name) => fields[name].value);
  const query = new URLSearchParams(given.map((name) => [name, fields[name].value]));
  history.pushState(null, "", `?${query}`);
  look();
});
addEventListener("popstate", () => {
  fill();
  look();
});
$("#compare").addEventListener("click", () => {
  const [before, after] = [...chosen].sort((a, b) => a - b);
  location.assign(`compare?run=${before}&run=${after}`);
});

frame(() => Promise.all([persistently(prepare), look()]));
