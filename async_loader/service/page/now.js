// The page of now: the run that goes on or the latest one, the form for the next one, jobs.
import { Problem, get, persistently } from "./api.js";
import { $, el, replace } from "./dom.js";
import { frame, showLine } from "./frame.js";
import * as jobs from "./jobs.js";
import * as run from "./run.js";
import { prepare, showTargets } from "./start.js";

const LOOK_MS = 3_000;

let lastLook = Date.now();

/** The run that the address names; null: whichever goes on. */
function pinned() {
  const number = Number(new URLSearchParams(location.search).get("run"));
  return Number.isInteger(number) && number > 0 ? number : null;
}

async function openWanted(targets) {
  const running = targets.map((target) => target.run).filter((number) => number);
  let number = pinned() ?? Math.max(0, ...running);
  if (!number) number = (await get("api/runs?limit=1")).runs[0]?.id;
  if (!number) return run.showNothing();
  if (number !== run.shown().number) await run.open(number);
}

/** Look at what goes on elsewhere; a page without a run of its own turns to one that starts. */
async function look() {
  try {
    const { targets } = await get("api/targets");
    showTargets(targets);
    jobs.showTargets(targets);
    if (run.shown().isActive) await run.update();
    else {
      showLine("ready", Date.now());
      await openWanted(targets);
    }
    showOthers(targets);
    lastLook = Date.now();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (!run.shown().isActive) showLine("lost", lastLook); // else its events say how the line is
  } finally {
    setTimeout(look, LOOK_MS);
  }
}

function showOthers(targets) {
  const others = targets.filter((target) => target.run && target.run !== run.shown().number);
  $("#others").hidden = !others.length;
  const links = others.map((target) =>
    el("li", {}, el("a", { href: `./?run=${target.run}` }, `Run ${target.run}`), ` is running on ${target.name}`),
  );
  const texts = (items) => items.map((item) => item.textContent).join();
  if (texts(links) !== texts([...$("#others ul").children])) replace($("#others ul"), links);
}

async function started(number) {
  history.pushState(null, "", `./?run=${number}`);
  await run.open(number);
  $("#state").focus();
}

addEventListener("popstate", async () => {
  const { targets } = await get("api/targets");
  await openWanted(targets);
});
addEventListener("ended", async () => showTargets((await get("api/targets")).targets));

frame(async () => {
  await Promise.all([persistently(() => prepare(started)), look()]);
});
