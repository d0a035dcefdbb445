"""Vectors of raw images, computed once."""
