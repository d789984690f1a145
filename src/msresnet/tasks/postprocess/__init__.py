"""From a network's outputs to results, without torch: what a task needs of itself to answer."""
