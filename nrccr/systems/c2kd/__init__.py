"""C2KD: distillation from teachers that read English."""
