"""Figures computed from answers and truths."""
