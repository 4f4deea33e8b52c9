"""The built-in workloads, written with the same public API as a user's own."""

BUILT_IN = ("mixed", "sequences", "noop")
