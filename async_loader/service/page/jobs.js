// Batch jobs on a target: how far they are; pause, resume, give up. Asked for only while it is
// open, because each look is a query to the target.
import { get, post } from "./api.js";
import { count, elapsed, perSecond } from "./charts.js";
import { $, el, options, replace, say } from "./dom.js";
import { title } from "./words.js";

const section = $("#jobs");
const target = $("#jobs-target");
const BUSY_MS = 2_000;
const IDLE_MS = 10_000;
const VERBS = { running: ["pause", "cancel"], paused: ["resume", "cancel"], failed: ["resume", "cancel"] };

// How long a process may take to begin, or to heed: it is looked for as if it ran.
const SOON_MS = 30_000;

let timer = 0;
let busyUntil = 0;
let last = "";

/** Show the targets to choose from. */
export function showTargets(targets) {
  const names = targets.map(({ name }) => name);
  target.parentElement.hidden = names.length < 2;
  if (String([...target.options].map((option) => option.value)) === String(names)) return;
  options(target, names);
  look();
}

async function look() {
  clearTimeout(timer);
  if (!section.open || !target.value || document.hidden) return;
  let wait = IDLE_MS;
  try {
    const { jobs } = await get(`api/jobs/${encodeURIComponent(target.value)}`);
    show(jobs);
    if (Date.now() < busyUntil || jobs.some((job) => job.state === "running")) wait = BUSY_MS;
  } catch (problem) {
    say($("#jobs-refusal"), problem.message);
  }
  clearTimeout(timer);
  timer = setTimeout(look, wait);
}

function show(jobs) {
  say($("#jobs-refusal"), "");
  const text = JSON.stringify(jobs);
  if (text === last) return;
  last = text;
  const none = el("li", { class: "note" }, "No job has run on this target.");
  replace($("#jobs-list"), jobs.length ? jobs.map(itemOf) : none);
}

function itemOf(job) {
  const done = job.rows_read + job.rows_skipped;
  const name = `${job.job}, run ${job.run}`;
  const bar = el("progress", { max: job.total ?? 1, value: job.total == null ? null : done, "aria-label": name });
  return el(
    "li", { "data-job": job.run },
    el("h3", {}, job.job, el("small", { class: "note" }, ` run ${job.run}`)),
    el("p", { class: `word ${job.state}` }, title(job.state)),
    job.total == null && job.state !== "running" ? null : bar,
    el("p", { class: "note" }, sentences(job, done).join(" · ")),
    job.message ? el("p", { class: "note" }, job.message) : null,
    el("div", { class: "actions" }, (VERBS[job.state] ?? []).map((verb) => button(job, verb))),
  );
}

function sentences(job, done) {
  const said = [job.total == null ? `${count(done)} rows` : `${count(done)} of ${count(job.total)} rows`];
  if (job.rows_skipped) said.push(`${count(job.rows_skipped)} skipped`);
  if (job.state === "running") {
    if (job.rate != null) said.push(perSecond(job.rate));
    if (job.eta_seconds != null) said.push(`${elapsed(Math.round(job.eta_seconds))} to go`);
    if (job.throttled_why) said.push(`held back: ${job.throttled_why}`);
  }
  if (!job.can_resume && job.state in VERBS) said.push("this service does not know its code");
  return said;
}

function button(job, verb) {
  const text = { pause: "Pause", resume: "Resume", cancel: "Give up" }[verb];
  const act = async () => {
    if (verb === "cancel" && !confirm(`Give up ${job.job}, run ${job.run}? It cannot be resumed then.`)) return;
    try {
      await post(`api/jobs/${encodeURIComponent(target.value)}/${job.run}/${verb}`);
      busyUntil = Date.now() + SOON_MS;
      say($("#announced"), `${job.job}, run ${job.run}: ${verb}`);
    } catch (problem) {
      say($("#jobs-refusal"), problem.message);
    }
    look();
  };
  const disabled = verb === "resume" && !job.can_resume;
  const label = `${text} ${job.job}, run ${job.run}`;
  return el("button", { type: "button", id: `job-${job.run}-${verb}`, disabled, "aria-label": label, onclick: act }, text);
}

section.open = localStorage.getItem("jobs") === "open";
section.addEventListener("toggle", () => {
  localStorage.setItem("jobs", section.open ? "open" : "closed");
  look();
});
target.addEventListener("change", look);
document.addEventListener("visibilitychange", look);
