"""Whether a device is ready for its targets, by its worker's `hello`: the one judgement of `devices` and `doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latlab.harness.devices.worker_client import Hello
from latlab.harness.targets import BENCHMARK_MODEL, Target
from latlab.harness.transports import DeviceConfig

__all__ = ["Obstacle", "connections", "install_advice", "obstacle"]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A reason why a target cannot be measured, and what to do about it."""

    target: Target
    why: str
    advice: str
    missing: bool = False
    """True if the runtime is not installed."""


def connections(targets: Sequence[Target]) -> list[list[Target]]:
    """Return the targets in groups that one connection serves: benchmark_model takes another one than the worker."""
    in_worker = [target for target in targets if target.runtime != BENCHMARK_MODEL]
    programs = [target for target in targets if target.runtime == BENCHMARK_MODEL]
    return [group for group in (in_worker, programs) if group]


def obstacle(config: DeviceConfig, target: Target, hello: Hello) -> Obstacle | None:
    """Return why a target cannot be measured, as far as a `hello` shows it; None if nothing is in its way.

    `latlab doctor` looks closer: it also runs a small network.

    Args:
        config: the device's entry in the inventory.
        target: one of its targets.
        hello: the reply of its worker, over the connection that serves the target.
    """
    usable = hello.usable_cpus or list(range(hello.cpu_count))
    if config.affinity is not None and not set(config.affinity) <= set(usable):
        why = f"its affinity {config.affinity} names CPUs that it does not have"
        return Obstacle(target, why, f"In the inventory, choose from {usable}.")
    runtime = hello.runtime(target.runtime)
    if not runtime.version:
        why = (runtime.why or f"{target.runtime} is not installed").partition(": pip ")[0]
        return Obstacle(target, why, install_advice(target.device, target.runtime), missing=True)
    # A worker that does not report GPUs may have some; a simulated device has whatever its targets need.
    if target.accelerator == "cuda" and hello.has_no_gpu and not hello.is_simulated:
        return Obstacle(target, "it has no GPU", "In the inventory, take `accelerator: cpu`, or another device.")
    cpus = len(config.affinity or usable)
    if target.threads > cpus:
        why = f"{cpus} CPUs for timing: {target.threads} threads would take turns"
        return Obstacle(target, why, f"In the inventory, take `threads: {cpus}` or less.")
    return None


def install_advice(device: str, runtime: str, *, again: bool = False) -> str:
    """Return advice for a device that lacks a runtime, or has one that does not work (`again`).

    `latlab setup` installs what runs in the worker; TFLite's own program is named in the inventory instead.
    """
    if runtime == BENCHMARK_MODEL:
        what = "another build of TFLite's program" if again else "TFLite's program for the device"
        return f"Name {what} with `benchmark_model` in the inventory."
    return f"Install it{' again' if again else ''}: `latlab setup {device} --runtime {runtime}`."
