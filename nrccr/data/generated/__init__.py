"""The generated collection: moving handwriting, captions in three languages, translation noise on a dial."""
