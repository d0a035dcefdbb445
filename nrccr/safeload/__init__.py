"""The one door for pickles and foreign checkpoints."""
