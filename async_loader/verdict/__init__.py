"""What is said of a result: thresholds, changes since a baseline, whether it is to be trusted."""
