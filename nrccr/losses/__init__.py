"""One pure loss per file: functions of embeddings or logits, without model, device or logger."""
