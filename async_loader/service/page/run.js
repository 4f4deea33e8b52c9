// One run as it is seen: verdict, figures, charts; live while it goes on.
import { get, post } from "./api.js";
import { CHARTS, timeChart, milliseconds } from "./charts.js";
import { Course } from "./course.js";
import { $, replace, say } from "./dom.js";
import { choose, follow, makeFigure, show } from "./figure.js";
import { showLine } from "./frame.js";
import * as parts from "./run_parts.js";
import { watch } from "./watch.js";
import { ACTIVE, classOf, portion, progress, title } from "./words.js";

const figures = {
  throughput: makeFigure("throughput", "Throughput"),
  latency: makeFigure("latency", "Latency"),
  connections: makeFigure("connections", "Connections"),
  split: makeFigure("split", "Where an operation’s time goes"),
  percentiles: makeFigure("percentiles", "Latency by percentile", "operation"),
};
const LIVE = ["throughput", "latency", "connections"];
const SPLIT = [
  ["pool_wait", "Pool wait", "--wait"], ["database", "Database", "--database"], ["orm", "ORM", "--orm"],
  ["application", "App", "--application"], ["elsewhere", "Elsewhere", "--elsewhere"],
  ["loop_queue", "Loop queue", "--queue"],
];

let wanted = null;
let run = null;
let phase = null;
let notes = [];
let course = new Course();
let stopWatching = () => {};
let frameAsked = 0;

/** The run that is shown, or will be as soon as the service has answered. */
export const shown = () => ({ number: wanted, isActive: run?.id === wanted && ACTIVE.includes(run?.state) });

/** Show a run, watched if it goes on. */
export async function open(number) {
  wanted = number;
  stopWatching();
  const found = await get(`api/runs/${number}`).catch(refused);
  if (!found || wanted !== number) return;
  if (found.id !== run?.id) clear();
  take(found);
  if (ACTIVE.includes(run.state)) stopWatching = watch(number, heard(number));
  else await showResult().catch(refused); // asked for again, as the run is
}

function clear() {
  course = new Course();
  notes = [];
  for (const figure of Object.values(figures)) figure.hidden = true;
  $("#results").hidden = true;
}

/** Ask how the run is now: that it is stopping is not among its events. */
export async function update() {
  const found = await get(`api/runs/${wanted}`);
  if (found.id === wanted && shown().isActive) take(found);
}

/** Say that there is nothing to see yet. */
export function showNothing() {
  showWords("No run yet", "Choose a scenario and a target, and start one.");
}

function refused(problem) {
  if (problem.status !== 404) {
    wanted = null; // asked for again with the next look
    throw problem;
  }
  showWords("Not found", `There is no run ${wanted}: it may be older than what is kept.`);
}

function showWords(word, sentence) {
  clear();
  run = null;
  for (const id of ["stop", "progress", "split", "errors", "settings"]) $(`#${id}`).hidden = true;
  for (const id of ["subject", "reasons", "tiles"]) $(`#${id}`).replaceChildren();
  document.documentElement.dataset.state = "none";
  $("#verdict").className = "verdict";
  say($("#state"), word);
  say($("#sentence"), sentence);
}

/** What speaks against the measurement of a run, where its reasons do not say it. */
function doubtsOf({ figures, reasons }) {
  const doubts = figures?.doubts ?? [];
  if (!doubts.length || reasons.some((text) => text.includes(doubts[0]))) return [];
  return [`The measurement is not good: ${doubts.join(", ")}`];
}

function take(found) {
  run = found;
  phase = run.phase;
  render();
}

function heard(number) {
  const isShown = () => wanted === number && run?.id === number;
  return {
    phase(text) {
      phase = text;
      if (isShown()) renderSoon();
    },
    snapshot(snapshot) {
      course.add(snapshot);
      if (isShown()) renderSoon();
    },
    note(text) {
      notes.push(text);
      if (isShown()) renderSoon();
    },
    line: showLine,
    async end(state) {
      if (!isShown()) return;
      say($("#announced"), `Run ${number}: ${state}`);
      showLine("ready", Date.now());
      await open(number);
      dispatchEvent(new Event("ended"));
    },
  };
}

/** Draw once a frame, however many events came. */
function renderSoon() {
  if (frameAsked) return;
  frameAsked = requestAnimationFrame(() => {
    frameAsked = 0;
    if (!run) return;
    render();
    drawCourse();
  });
}

function render() {
  const snapshot = course.last ?? run.snapshot;
  const isActive = ACTIVE.includes(run.state);
  document.documentElement.dataset.state = run.state;
  document.title = `${title(run.state)}: run ${run.id}, ${run.scenario} on ${run.target}`;
  $("#verdict").className = `verdict ${classOf(run.state)}`;
  say($("#state"), title(run.state));
  say($("#sentence"), isActive ? sentenceOf(snapshot) : parts.summary(run));
  say($("#subject"), parts.subject(run));
  replace($("#reasons"), parts.items([...run.reasons, ...doubtsOf(run), ...notes]));
  showProgress(isActive ? snapshot : null);
  $("#stop").hidden = !isActive;
  say($("#stop"), run.state === "stopping" ? "Stop now, without waiting" : "Stop");
  replace($("#tiles"), parts.tiles(run, snapshot));
  parts.showSplit($("#split"), snapshot);
  parts.showErrors($("#errors"), snapshot);
  parts.showSettings($("#settings"), run);
}

function sentenceOf(snapshot) {
  return phase === "running" && snapshot ? progress(snapshot) : title(phase ?? "starting");
}

function showProgress(snapshot) {
  const done = snapshot && portion(snapshot);
  $("#progress").hidden = !snapshot || done === null;
  if (done !== null) $("#progress").value = done ?? 0;
}

function drawCourse() {
  if (!course.length || !ACTIVE.includes(run.state)) return;
  const data = course.chartData();
  say($("#chart-latency"), "Latency of the last 5 s");
  const isThere = (name) => name !== "connections" || course.last.in_use != null;
  for (const name of LIVE.filter(isThere)) follow(figures[name], (theme, choices) => CHARTS[name](data, theme, choices));
  if (course.last.time_split) follow(figures.split, () => splitChart(data.seconds));
}

function splitChart(x) {
  const style = getComputedStyle(document.documentElement);
  const lines = SPLIT.map(([part, label, color]) => {
    return { label, values: course.timeIn(part), color: style.getPropertyValue(color).trim() };
  });
  const dim = style.getPropertyValue("--dim").trim();
  const grid = style.getPropertyValue("--grid").trim();
  return timeChart({ x, lines, unit: milliseconds, theme: { dim, grid } });
}

/** What the result has, which tells more than the snapshots did. */
async function showResult() {
  const { id, has_result } = run;
  $("#results").hidden = !has_result;
  if (!has_result) return;
  parts.showResultLinks($("#results"), run);
  const data = await get(`api/runs/${id}/charts`);
  if (run.id !== id) return;
  const [drawn] = data.runs;
  const isThere = {
    throughput: true,
    latency: drawn.slices?.seconds.length > 1,
    connections: drawn.in_use.some((value) => value),
    percentiles: Object.keys(drawn.percentiles).length > 0,
  };
  say($("#chart-latency"), "Latency over time");
  figures.split.hidden = true; // its sum stays
  choose(figures.percentiles, "operation", parts.operations(drawn));
  for (const name of Object.keys(isThere)) {
    if (isThere[name]) show(figures[name], (theme, choices) => CHARTS[name](data, theme, choices));
    else figures[name].hidden = true;
  }
}

$("#charts").append(...Object.values(figures));
$("#stop").addEventListener("click", async () => {
  const { id } = run;
  await post(`api/runs/${id}/stop`).catch((problem) => say($("#announced"), problem.message));
  if (wanted === id) await update();
});
