"""How fast models answer on this machine, by every backend and precision, side by side."""
