"""Trained models as parts of other packages; each module needs its extra, and nothing else of nrccr imports them."""
