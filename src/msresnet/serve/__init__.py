"""The server: programs over the Open Inference Protocol, people over a page."""
