"""What a network's outputs mean: the seam between networks and everything that uses them."""
