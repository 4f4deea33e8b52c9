// Watching a run: its events, over a line that comes back by itself.

// A snapshot comes each second; without any for so long, what is shown is stale.
const STALE_MS = 5_000;
// A line that looks open and brings nothing is opened anew.
const DEAF_MS = 20_000;
const AGAIN_MS = 2_000;

/**
 * Watch a run until its end, or until the returned function is called.
 *
 * `on` has `phase(text)`, `snapshot(snapshot)`, `note(text)`, `end(state, reasons)`, and
 * `line(state, since)`: "live", "stale" or "lost", and when the last word came.
 */
export function watch(number, on) {
  let source, heard, line, looking, snapshots, over;

  function open() {
    source?.close();
    heard = Date.now();
    snapshots = false;
    source = new EventSource(`api/runs/${number}/events`);
    source.addEventListener("open", hear);
    source.addEventListener("phase", ({ data }) => {
      hear();
      snapshots = false; // until the next one: a phase may well take its time
      on.phase(JSON.parse(data).phase);
    });
    source.addEventListener("snapshot", ({ data }) => {
      hear();
      snapshots = true;
      on.snapshot(JSON.parse(data));
    });
    source.addEventListener("note", ({ data }) => on.note(JSON.parse(data).note));
    source.addEventListener("end", ({ data }) => {
      hear();
      const { state, reasons } = JSON.parse(data);
      stop();
      on.end(state, reasons);
    });
    source.addEventListener("error", () => {
      tell("lost");
      // The browser connects again by itself, unless it was answered that it must not.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => over || open(), AGAIN_MS);
    });
  }

  function hear() {
    heard = Date.now();
    tell("live");
  }

  function tell(state) {
    if (state !== line) on.line(state, heard);
    line = state;
  }

  function look() {
    const silent = Date.now() - heard;
    if (!snapshots || silent < STALE_MS || line === "lost") return;
    tell("stale");
    if (silent > DEAF_MS) open();
  }

  function stop() {
    over = true;
    source.close();
    clearInterval(looking);
  }

  open();
  looking = setInterval(look, 1000);
  return stop;
}
