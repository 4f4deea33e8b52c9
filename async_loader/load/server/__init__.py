"""What the server itself tells of a run."""
