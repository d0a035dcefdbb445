"""Captions -> translations: models, programs, the files of a collection, and what went wrong in them."""
