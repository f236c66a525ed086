"""Fast paths for a CPU: the same numbers in fewer calls."""
