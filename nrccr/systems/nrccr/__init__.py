"""NRCCR (Wang, Dong et al., ACM MM 2022)."""
