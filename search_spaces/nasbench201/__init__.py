"""NAS-Bench-201's search space (Dong and Yang, ICLR 2020)."""
