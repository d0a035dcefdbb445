"""The systems, a folder a paper, and what they share."""
