"""One load test, from a spec to a result."""
