"""The images on which the ranges of activations are measured before a network is quantised to int8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CALIBRATION_IMAGES", "CALIBRATION_SEED", "calibration_images"]

CALIBRATION_IMAGES = 8
"""Over five networks each of NAS-Bench-201 and FBNet in int8 TFLite, the median ratio of signal to quantisation noise
of the outputs on other images, the largest share of a layer's outputs outside its range, and the seconds of an export
on a busy machine: 2 images 8.6 dB, 7.5 %, .21 s; 4 images 12.7 dB, 2.5 %, .22 s; 8 images 10.2 dB, 7.5 %, .29 s; 16
images 11.8 dB, 1 %, .38 s. From four on the differences are noise; eight leave some room."""
CALIBRATION_SEED = 2
"""Not the seed of the images on which files are compared (`parity.py`), which must be new to the file."""


def calibration_images(shape: Sequence[int]) -> Tensor:
    """Return `CALIBRATION_IMAGES` seeded images for a network whose input has `shape` (batch first), normal noise.

    Their standard deviations go from 0.75 to 1.25: calibrated on one contrast only, means over an image leave their
    range for images of another contrast. Shape: images x shape[1:]. All formats are calibrated on the same images.
    """
    import torch

    generator = torch.Generator().manual_seed(CALIBRATION_SEED)
    images = torch.randn(CALIBRATION_IMAGES, *shape[1:], generator=generator)
    contrasts = torch.linspace(0.75, 1.25, CALIBRATION_IMAGES)
    return images * contrasts.view(-1, *(1 for _ in shape[1:]))
