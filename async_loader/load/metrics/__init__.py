"""What is counted while a run goes on, and becomes its result."""
