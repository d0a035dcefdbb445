"""Baselines: frozen encoders, compared as they are or through a linear map; nothing is trained by gradients."""
