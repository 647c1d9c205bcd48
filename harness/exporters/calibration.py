"""The images on which the ranges of activations are measured before a network is quantised to int8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CALIBRATION_IMAGES", "CALIBRATION_SEED", "calibration_images"]

CALIBRATION_IMAGES = 8
CALIBRATION_SEED = 2
"""Not the seed of the images on which files are compared (`parity.py`), which must be new to the file."""


def calibration_images(shape: Sequence[int]) -> Tensor:
    """Return `CALIBRATION_IMAGES` seeded images for a network whose input has `shape` (batch first), normal noise.

    Shape: images x shape[1:]. All formats are calibrated on the same images.
    """
    import torch

    generator = torch.Generator().manual_seed(CALIBRATION_SEED)
    images = torch.randn(CALIBRATION_IMAGES, *shape[1:], generator=generator)
    contrasts = torch.linspace(0.75, 1.25, CALIBRATION_IMAGES)
    return images * contrasts.view(-1, *(1 for _ in shape[1:]))
