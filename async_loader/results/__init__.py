"""What a run found: frozen, mergeable, saved as JSON. Reports and comparisons read nothing else."""
