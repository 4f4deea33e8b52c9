"""One file for each form a result is shown in; each reads a `RunResult` and nothing else."""
