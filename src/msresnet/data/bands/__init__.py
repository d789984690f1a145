"""Images from top to bottom, some rows at a time: one file for each format that can be read so."""
