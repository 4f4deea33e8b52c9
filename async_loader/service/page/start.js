// The form that starts a run: scenario, target, what may be overridden.
import { get, post } from "./api.js";
import { $, el, options, replace, say } from "./dom.js";
import { elapsed } from "./charts.js";
import { moment } from "./words.js";

const form = $("#start");
const { scenario: scenarioSelect, target: targetSelect, mode: modeSelect } = form.elements;
const numbers = [...form.querySelectorAll("input")];
let scenarios = [];
let places = new Map();

/** Ask what there is to run; call `started` with the number of each run that is started here. */
export async function prepare(started) {
  const found = await get("api/scenarios");
  scenarios = found.scenarios;
  const can = scenarios.filter((each) => each.can_run).map((each) => each.name);
  options(scenarioSelect, can);
  for (const [name, most] of Object.entries(found.bounds)) form.elements[name].max = most;
  replace($("#unusable"), scenarios.filter((each) => each.problem).map(problemOf));
  form.querySelector("button.primary").disabled = !can.length;
  if (!scenarios.length) say($("#about"), "There is no scenario: --config-dir names the folder of their files.");
  describe();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(started);
  });
}

/** Show the targets, and which of them has a run. */
export function showTargets(targets) {
  const text = ({ name, run, up }) => (run ? `${name}, busy with run ${run}` : up === false ? `${name}, does not answer` : name);
  const values = targets.map((target) => [target.name, text(target)]);
  const now = [...targetSelect.options].map((option) => [option.value, option.text]);
  if (JSON.stringify(now) !== JSON.stringify(values)) options(targetSelect, values);
  places = new Map(targets.map(({ name, place, problem }) => [name, problem ? `${place}, which does not answer: ${problem}` : place]));
  describeTarget();
}

function problemOf({ name, problem }) {
  return el("li", {}, el("b", {}, name), `: ${problem}`);
}

/** What the scenario has where nothing is overridden. */
function describe() {
  const scenario = scenarios.find((each) => each.name === scenarioSelect.value);
  if (!scenario) return;
  const { settings, every, next_at, on_target } = scenario;
  for (const input of numbers) input.placeholder = settings[input.name] ?? "";
  modeSelect.options[0].text = `as it is: ${settings.mode}`;
  const next = next_at ? `, next on ${moment(next_at)}` : "";
  const schedule = every ? `, by itself every ${elapsed(every)}${next}` : "";
  say($("#about"), `Workload ${settings.workload}${schedule}.`);
  if (on_target) targetSelect.value = on_target;
  describeTarget();
}

function describeTarget() {
  const place = places.get(targetSelect.value);
  say($("#place"), place ? `At ${place}.` : "");
}

async function submit(started) {
  const button = form.querySelector("button.primary");
  const overrides = {};
  for (const { name, value } of numbers) if (value !== "") overrides[name] = Number(value);
  if (modeSelect.value) overrides.mode = modeSelect.value;
  button.disabled = true;
  refuse(null);
  try {
    const body = { scenario: scenarioSelect.value, target: targetSelect.value, overrides };
    started((await post("api/runs", body)).id);
  } catch (problem) {
    refuse(problem);
  }
  button.disabled = false;
}

/** Say why a run was not started, at the field that it is about. */
function refuse(problem) {
  const place = $("#refusal");
  for (const input of numbers) input.removeAttribute("aria-invalid");
  place.replaceChildren();
  if (!problem) return;
  const fields = problem.errors.map(({ field, problem: text }) => {
    const name = field.split(".").at(-1);
    form.elements[name]?.setAttribute?.("aria-invalid", "true");
    return `${name}: ${text}`;
  });
  const name = problem.message.match(/^overrides\.(\w+)/)?.[1];
  if (name) form.elements[name]?.setAttribute("aria-invalid", "true");
  place.append(fields.length ? fields.join("; ") : problem.message);
  if (problem.run) place.append(" ", el("a", { href: `./?run=${problem.run}` }, "Watch it"));
}

scenarioSelect.addEventListener("change", describe);
targetSelect.addEventListener("change", describeTarget);
