"""The databases that a run can use: their engines, sessions, and what a run makes in them."""
