"""One paper's network per file, and the parts they share."""
