"""Training runs: the loop, its checkpoints and metrics, and several processes."""
