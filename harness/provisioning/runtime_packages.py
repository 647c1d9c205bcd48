"""The distributions that provide each runtime, by platform: facts about registries that pip cannot know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from latlab.harness.provisioning.platforms import Platform
from latlab.harness.targets import RUNTIMES

__all__ = ["INSTALLABLE", "ON_CUDA", "Choice", "UnavailableError", "choices"]

TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PIWHEELS = "https://www.piwheels.org/simple"
"""An index with builds of C extensions, numpy among them, for 32-bit Raspberry Pis."""
OLD_TFLITE = ("tflite-runtime", "numpy<2")
"""The older TFLite package. It was built for numpy 1: with numpy 2 it imports, but fails at the first network."""
TORCH_AARCH64 = "torch<2.11"
"""Later versions require CUDA's libraries on any aarch64 Linux."""
EXECUTORCH = "executorch==1.5.*"
"""The release that was built with the torch of latlab. Its bindings find all that they need in torch 2.10, too."""
OLDER_TORCH = "2.8.0"
"""The last version that runs on Python 3.9."""


class UnavailableError(Exception):
    """No distribution of the runtime exists for the device. The message names alternatives."""


@dataclass(frozen=True)
class Choice:
    """One way to install a runtime: requirements, and the indexes that have them."""

    requirements: tuple[str, ...]
    indexes: tuple[str, ...] = ()
    """Indexes to search in addition to those of pip's configuration."""
    bare: tuple[str, ...] = ()
    """Distributions whose own requirements are left out, because the worker imports only a part of them."""


def choices(runtime: str, platform: Platform, accelerator: str = "cpu") -> list[Choice]:
    """Return the ways to get `runtime` for a platform, the best first. pip finds out which of them exist.

    Args:
        runtime: one of `RUNTIMES`.
        platform: the device's platform.
        accelerator: `cpu`, or `cuda` for machines with an NVIDIA GPU.

    Raises:
        UnavailableError: there is none.
    """
    if platform.libc == "musl":
        raise UnavailableError(f"no wheel of {runtime} for musl ({platform}): take a system with glibc, such as Debian")
    return _CHOICES[runtime](platform, accelerator)


def _onnxruntime(platform: Platform, accelerator: str) -> list[Choice]:
    _only(platform, "onnxruntime", "x86_64", "aarch64")
    if accelerator != "cuda":
        return [Choice((f"onnxruntime=={_own('onnxruntime')}",)), Choice(("onnxruntime",))]
    if platform.machine != "x86_64":
        raise UnavailableError(
            f"no wheel of onnxruntime-gpu for {platform.machine} on the public index: NVIDIA has its own for Jetsons"
        )
    name = "onnxruntime-gpu[cuda,cudnn]"
    return [Choice((f"{name}=={_own('onnxruntime')}",)), Choice((name,))]


def _tflite(platform: Platform, _: str) -> list[Choice]:
    _only(platform, "tflite", "x86_64", "aarch64", "armv7l")
    if platform.machine == "armv7l":
        return [Choice(OLD_TFLITE, (PIWHEELS,))]
    return [
        Choice((f"ai-edge-litert=={_own('ai-edge-litert')}",)),
        Choice(("ai-edge-litert",)),
        Choice(OLD_TFLITE),
    ]


def _torchscript(platform: Platform, accelerator: str) -> list[Choice]:
    _only(platform, "torch", "x86_64", "aarch64")
    own = _own("torch")
    if accelerator == "cuda":
        # A folder given with --find-links may contain the CPU build, which pip would take for the newer version.
        no_cpu = f"!={own}+cpu"
        return [Choice((f"torch=={own},{no_cpu}", "numpy")), Choice((f"torch>=2.4,{no_cpu}", "numpy"))]
    if platform.machine == "aarch64":
        return [Choice((TORCH_AARCH64, "numpy"))]
    # `+cpu` must be in the requirement: the same version without it is the CUDA build, and would satisfy pip, too.
    return [Choice((f"torch=={version}+cpu", "numpy"), (TORCH_CPU_INDEX,)) for version in (own, OLDER_TORCH)]


def _openvino(platform: Platform, _: str) -> list[Choice]:
    _only(platform, "openvino", "x86_64", "aarch64")
    ways = [f"openvino=={_own('openvino')}"] if _is_here("openvino") else []
    return [Choice((way,)) for way in (*ways, "openvino")]


def _executorch(platform: Platform, _: str) -> list[Choice]:
    _only(platform, "executorch", "x86_64", "aarch64")
    best = _torchscript(platform, "cpu")[0]
    # All else that it requires, scikit-learn among it, is for writing files.
    return [Choice((EXECUTORCH, *best.requirements, "numpy>=2"), best.indexes, bare=("executorch",))]


def _only(platform: Platform, what: str, *machines: str) -> None:
    if platform.machine not in machines:
        alone = ": that device has tflite only" if platform.machine == "armv7l" else ""
        raise UnavailableError(f"no wheel of {what} for {platform.machine}{alone}")


def _is_here(distribution: str) -> bool:
    return any(metadata.distributions(name=distribution))


@cache
def _own(distribution: str) -> str:
    """Return the version that latlab itself runs with, without the build's suffix."""
    return metadata.version(distribution).partition("+")[0]


_CHOICES: dict[str, Callable[[Platform, str], list[Choice]]] = {
    "onnxruntime": _onnxruntime,
    "tflite": _tflite,
    "torchscript": _torchscript,
    "openvino": _openvino,
    "executorch": _executorch,
}
INSTALLABLE = tuple(_CHOICES)
"""Runtimes that `latlab setup` can install: those of the worker."""
ON_CUDA = tuple(name for name in INSTALLABLE if "cuda" in RUNTIMES[name].accelerators)
"""Runtimes that have packages of their own for NVIDIA GPUs."""
