"""The configuration: what every key is, files and overrides."""
