"""The process around the work: its loop, signals and streams, and the modules that users name."""
