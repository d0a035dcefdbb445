"""MLCMR, the multilingual baseline."""
