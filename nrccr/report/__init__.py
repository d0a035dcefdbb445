"""Figures and comparisons over finished runs."""
