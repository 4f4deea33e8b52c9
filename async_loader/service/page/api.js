// The service's API: JSON in and out, problems as exceptions.

/** What the service, or the line to it, refuses. `status` is 0 where there was no answer. */
export class Problem extends Error {
  constructor(status, detail, { errors = [], run = null } = {}) {
    super(detail);
    this.status = status;
    this.errors = errors;
    this.run = run;
  }
}

export function get(path) {
  return ask(path, { method: "GET" });
}

/** Change something. The header says that a page of the service asks: no other site can send it. */
export function post(path, body) {
  const headers = { "X-Async-Loader": "1" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) });
}

/** Who asks: a POST with a token logs in. */
export const SESSION = "/api/session";
const PATIENCE_MS = 15_000;

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
