// What all pages have: who asks, and how the line to the service is.
import { SESSION, get, post } from "./api.js";
import { $, el, replace, say } from "./dom.js";
import { clock } from "./words.js";

// What an answer that did not come interrupts, and the next one brings back.
let interrupted = null;
addEventListener("unanswered", () => {
  const { line } = document.documentElement.dataset;
  if (line === "lost") return;
  interrupted = line ?? "ready";
  showLine("lost", Date.now());
});
addEventListener("answered", () => {
  if (interrupted && document.documentElement.dataset.line === "lost") showLine(interrupted, Date.now());
  interrupted = null;
});
addEventListener("unauthorized", () => location.reload()); // the session is over

/** Call `start` once the service knows who asks; until then it is asked for a token. */
export async function frame(start) {
  let session;
  try {
    session = await get(SESSION);
  } catch {
    showLine("lost", Date.now());
    setTimeout(() => frame(start), 2000);
    return;
  }
  if (session.who === null) return showLogin();
  showSession(session);
  start();
}

/** Say how the line is: "live", "stale", "lost" or, with nothing to watch, "ready". */
export function showLine(state, since) {
  const at = clock(since);
  const texts = {
    ready: "Ready",
    live: "Live",
    stale: `Stale: no word since ${at}`,
    lost: `Not connected since ${at}: trying again`,
  };
  document.documentElement.dataset.line = state;
  say($("#line"), texts[state]);
}

function showSession({ who, needs_token }) {
  if (!needs_token) return;
  const leave = async () => {
    await post(`${SESSION}/end`);
    location.reload();
  };
  replace($("#who"), el("span", { class: "note" }, who), el("button", { type: "button", onclick: leave }, "Log out"));
}

function showLogin() {
  say($("#line"), "Not logged in");
  const refusal = el("p", { class: "refusal", role: "alert" });
  const token = el("input", { id: "token", type: "password", autocomplete: "current-password", required: true });
  const enter = async (event) => {
    event.preventDefault();
    try {
      await post(SESSION, { token: token.value });
      location.reload();
    } catch (problem) {
      say(refusal, problem.message);
    }
  };
  const form = el(
    "form", { id: "login", class: "card fields", onsubmit: enter },
    el("h1", {}, "Log in"),
    el("input", { autocomplete: "username", value: "async_loader", hidden: true }), // for what keeps passwords
    el("label", { for: "token" }, "Token", token),
    refusal,
    el("button", { class: "primary" }, "Log in"),
  );
  $("main").replaceChildren(form);
  token.focus();
}
