"""Where samples come from: one file per form of data."""
