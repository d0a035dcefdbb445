"""Encode, score, rank: three functions, and only the first sees a model."""
