"""The loop, its schedule, its state on disk and its log."""
