"""The weights that HELP's authors published (github.com/HayeonLee/HELP, `data/*/checkpoint/help_max_corr.pt`).

They are files of PyTorch, of which only tensors are read (`weights_only`): nothing in them is run.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latlab.predictors.bases.trunks import HIDDEN, GCNTrunk, Params, Trunk
from latlab.predictors.help.meta_learning import Settings
from latlab.predictors.help.network import Meta, misfit

__all__ = ["published_weights"]

PREFIX = "meta_learner."
LAYERS = {
    "fc1": "arch1",
    "fc2": "arch2",
    "fc_hw1": "device1",
    "fc_hw2": "device2",
    "fc3": "head1",
    "fc4": "head2",
    "fc5": "head3",
    **{f"gc{layer}": f"gcn{layer}" for layer in range(1, 5)},
}
"""Names of layers in the files, and here."""


def published_weights(path: str, trunk: Trunk, settings: Settings) -> Meta:
    """Return the weights in a file of HELP's authors.

    Raises:
        ValueError: the file cannot be read, or its weights are of another space or with other modules. Or the space is
            NAS-Bench-201: the graphs that its weights were trained on are in a file of the authors' own, and on this
            space's graphs they predict nothing (`benchmarks/RESULTS.md`, section 38).
    """
    try:
        # The files are from PyTorch 1.8: a zip, of which the reader of today takes tensors, numbers and dictionaries.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # for bytes that are no checkpoint it raises whatever its steps come upon
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the checkpoint {path} cannot be read without running what is in it: {reason:.200}") from None
    try:
        weights, rates = _weights(content["model"]), _weights(content["task_lr"])
        inference: Params = {}
        if settings.modulate:
            encoder = content["inference_network"]
            for layer, place in (("inference1", 0), ("inference2", 2)):
                inference[f"{layer}.weight"] = _plain(encoder[f"z_encoder.{place}.weight"]).T.contiguous()
                inference[f"{layer}.bias"] = _plain(encoder[f"z_encoder.{place}.bias"])
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise ValueError(f"{path} is no checkpoint of HELP: {type(error).__name__} {error}") from None
    if isinstance(trunk, GCNTrunk):
        raise ValueError(
            f"the checkpoint {path} cannot be used for NAS-Bench-201, whose graphs HELP's authors write in a form of "
            "their own; those of FBNet and OFA-MobileNetV3 can"
        )
    found = Meta(weights, rates, inference)
    wrong = misfit(found, trunk)
    if wrong is None and ("head1.device" in weights) != settings.condition:
        wrong = "it has other modules"
    if wrong:
        raise ValueError(f"{path} is no checkpoint of HELP for this space: {wrong}")
    return found


def _weights(named: dict[str, Tensor]) -> Params:
    """Return weights by their names here; linear layers are transposed, and the head's first is in two halves."""
    found: Params = {}
    for name, value in named.items():
        layer, kind = name.removeprefix(PREFIX).split(".")
        linear = kind == "weight" and layer.startswith("fc")
        found[f"{LAYERS[layer]}.{kind}"] = _plain(value).T.contiguous() if linear else _plain(value)
    whole = found.pop("head1.weight")
    found["head1.arch"] = whole[:HIDDEN].clone()
    if len(whole) > HIDDEN:
        found["head1.device"] = whole[HIDDEN:].clone()
    return found


def _plain(value: Tensor) -> Tensor:
    return value.detach().to(torch.float32)
