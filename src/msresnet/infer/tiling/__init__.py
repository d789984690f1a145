"""Images of any size, tile by tile."""
