"""Once-for-all's MobileNetV3 search space (Cai et al., ICLR 2020)."""
