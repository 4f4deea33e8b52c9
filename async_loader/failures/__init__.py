"""What went wrong, as data: its kind, the user's line, and a text without secrets."""
