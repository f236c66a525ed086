"""Parts and optimizers that came after the paper."""
