// How values read. Numbers of measurements are those of the reports: see charts.js.
import { count, elapsed, milliseconds, perSecond } from "./charts.js";

const DAY = { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" };
const MOMENT = new Intl.DateTimeFormat(undefined, DAY);
const LONG_AGO = new Intl.DateTimeFormat(undefined, { ...DAY, year: "numeric" });
const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** The states of a run that goes on. */
export const ACTIVE = ["running", "stopping"];

export const STATES = ["running", "stopping", "passed", "not measured", "failed", "stopped", "error", "interrupted"];

/** The name of a state in the style sheet. */
export function classOf(state) {
  return state.replaceAll(" ", "-");
}

export function title(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function moment(text) {
  if (text == null) return "–";
  const date = new Date(text);
  const isThisYear = date.getFullYear() === new Date().getFullYear();
  return (isThisYear ? MOMENT : LONG_AGO).format(date);
}

export function clock(milliseconds) {
  return CLOCK.format(new Date(milliseconds));
}

export function share(part) {
  return part == null ? "–" : `${(100 * part).toFixed(part && part < 0.001 ? 3 : 2)}%`;
}

/** A figure of a comparison, in its unit. */
export function figure(value, unit) {
  if (value == null) return "–";
  return unit === "share" ? share(value) : unit === "ms" ? milliseconds(value) : perSecond(value);
}

/** A change: relative, of shares in percentage points. */
export function change(value, unit) {
  if (value == null) return "–";
  const sign = value > 0 ? "+" : value < 0 ? "−" : "±";
  const size = Math.abs(100 * value);
  return unit === "share" ? `${sign}${size.toFixed(2)} points` : `${sign}${size.toFixed(1)}%`;
}

/** How far a run is: what it has done, of what it has to do. */
export function progress({ completed, planned, seconds, duration }) {
  const operations = planned == null ? count(completed) : `${count(completed)} of ${count(planned)}`;
  const time = duration == null ? short(seconds) : `${short(Math.min(seconds, duration))} of ${short(duration)}`;
  return `${operations} operations in ${time}`;
}

function short(seconds) {
  return elapsed(seconds < 10 ? +seconds.toFixed(1) : Math.round(seconds));
}

/** Between 0 and 1; null where nobody knows. */
export function portion({ completed, planned, seconds, duration }) {
  if (planned) return Math.min(1, completed / planned);
  return duration ? Math.min(1, seconds / duration) : null;
}

/** A run in a few words, to choose it by. */
export function named(run) {
  return `${run.id}: ${run.scenario} on ${run.target}, ${run.state}, ${moment(run.started_at)}`;
}
