"""FBNet's search space (Wu et al., CVPR 2019)."""
