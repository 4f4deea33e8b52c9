// The service's API: JSON in and out, problems as exceptions.

/** What the service, or the line to it, refuses. `status` is 0 where there was no answer. */
export class Problem extends Error {
  constructor(status, detail, { errors = [], run = null, type = null } = {}) {
    super(detail);
    this.status = status;
    this.isOurs = type !== null; // else a proxy's page, or nothing
    this.errors = errors;
    this.run = run;
  }
}

/** Ask, and again where nothing or something between answered, with a pause that grows. */
export async function get(path) {
  for (const pause of PAUSES_MS) {
    try {
      const document = await ask(path, { method: "GET" });
      dispatchEvent(new Event("answered"));
      return document;
    } catch (problem) {
      if (!isPassing(problem)) throw problem;
      dispatchEvent(new Event("unanswered"));
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  return ask(path, { method: "GET" });
}

/** Do what asks, once more each time that it was not answered: however long that takes. */
export async function persistently(work) {
  for (let pause = 1_000; ; pause = Math.min(2 * pause, 30_000)) {
    try {
      return await work();
    } catch (problem) {
      if (!isPassing(problem)) throw problem;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Whether the same question may well be answered later. */
function isPassing(problem) {
  return problem instanceof Problem && (PASSING.includes(problem.status) || !problem.isOurs);
}

/** Change something. The header says that a page of the service asks: no other site can send it. */
export function post(path, body) {
  const headers = { "X-Async-Loader": "1" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) });
}

/** Who asks: a POST with a token logs in. */
export const SESSION = "api/session";
const PATIENCE_MS = 15_000;
const PAUSES_MS = [250, 500, 1_000, 2_000, 4_000];
const PASSING = [0, 408, 429, 503, 504];

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch {
    throw new Problem(0, "The service does not answer.");
  }
  const document = await answer.json().catch(() => ({}));
  if (answer.ok) return document;
  if (answer.status === 401 && path !== SESSION) dispatchEvent(new Event("unauthorized"));
  throw new Problem(answer.status, document.detail ?? `The service answers ${answer.status}.`, document);
}
