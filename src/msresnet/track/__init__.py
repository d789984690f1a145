"""Objects found in frames of a video -> the same objects over time."""
