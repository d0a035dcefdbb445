"""Quartet: the parts of the four systems that help, in several languages at once."""
