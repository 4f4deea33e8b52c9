"""What each command does, between its settings and its exit code."""
