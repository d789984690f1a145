"""Several ways to train at an equal budget, over several seeds: which is better by more than chance."""
