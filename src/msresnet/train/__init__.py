"""Training: configuration, optimiser, loop, checkpoints."""
