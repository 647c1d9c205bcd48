"""HAT's Transformers (Wang et al., ACL 2020)."""
