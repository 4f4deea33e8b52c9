// The course of a run that goes on: its snapshots, as what the reports' charts draw.

// Two hours of seconds. What came before that is in the report.
const MOST = 7200;

export class Course {
  #snapshots = [];

  /** Take the next snapshot; one of an earlier second begins a new phase, or the same one again. */
  add(snapshot) {
    if (this.last && snapshot.seconds < this.last.seconds) this.#snapshots = [];
    this.#snapshots.push(snapshot);
    if (this.#snapshots.length > MOST) this.#snapshots.shift();
  }

  get last() {
    return this.#snapshots.at(-1);
  }

  get length() {
    return this.#snapshots.length;
  }

  /** The same shape as page_data.py's, with a point a second; percentiles are of the last 5 s. */
  chartData() {
    const known = (name) => this.#snapshots.map((each) => each.recent?.[name] ?? null);
    const seconds = this.#snapshots.map((each) => each.seconds);
    const percentiles = { p50: known("p50_ms"), p95: known("p95_ms"), p99: known("p99_ms") };
    const run = {
      label: "run",
      throughput: { mean: this.#snapshots.map((each) => each.rate) },
      failed: this.#perSecond((each) => each.bad),
      in_use: this.#snapshots.map((each) => each.in_use),
      waiting: this.#snapshots.map((each) => each.waiting),
      slices: { seconds, by_operation: { "": percentiles } },
    };
    return { seconds, runs: [run] };
  }

  /** The mean milliseconds that an operation of each second spent in a part of `time_split`. */
  timeIn(part) {
    return this.#between((before, now) => {
      const operations = now.completed - before.completed;
      if (!now.time_split || operations <= 0) return null;
      return (1000 * (now.time_split[part] - (before.time_split?.[part] ?? 0))) / operations;
    });
  }

  #perSecond(figure) {
    return this.#between((before, now) => {
      const seconds = now.seconds - before.seconds;
      return seconds > 0 ? (figure(now) - figure(before)) / seconds : null;
    });
  }

  #between(difference) {
    return this.#snapshots.map((now, n) => (n ? difference(this.#snapshots[n - 1], now) : null));
  }
}
