"""When operations are let in, and until when."""
