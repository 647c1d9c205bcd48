"""Installation of runtimes on a device that needs neither pip nor the internet; each runtime then runs a network.

The worker reports the device's platform, this machine's pip fetches wheels for it, and the worker unpacks them into a
private environment in its work folder. Each runtime then runs a small real network, because an import proves nothing.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from latlab.harness.devices.doctor import examine
from latlab.harness.devices.health_checks import Finding
from latlab.harness.devices.owner import busy_advice
from latlab.harness.devices.session import DeviceBusyError, DeviceFaultError
from latlab.harness.devices.worker_client import Hello, WorkerClient
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.paths import cache_folder
from latlab.harness.provisioning.platforms import Platform
from latlab.harness.provisioning.runtime_packages import INSTALLABLE, ON_CUDA, Choice, UnavailableError, choices
from latlab.harness.provisioning.wheels import NoWheelError, Wheel, WheelFetcher
from latlab.harness.targets import USUAL_RUNTIMES
from latlab.harness.transports import ConnectError, DeviceConfig, DeviceLostError, WorkerError, open_transport
from latlab.harness.transports.config import TargetsConfig

__all__ = ["SetUp", "set_up"]

HELLO_S = 180.0
"""Seconds to wait for the first reply: an emulated Pi needs a minute."""
IDLE_S = 3600.0
INSTALL_S = 600.0
UNPACKED_BYTES_PER_S = 50e3
"""Slowest unpacking in bytes of wheels per second, on a slow card in a slow device.

It limits a hang; it is no estimate.
"""


@dataclass(frozen=True)
class SetUp:
    """The result of setting a device up: what was installed, and whether each runtime then ran a network."""

    device: str
    platform: Platform
    environment: str
    wheels: list[Wheel]
    brought_bytes: int
    """Bytes of the wheels sent to the device; 0 if the device had all of them."""
    unavailable: dict[str, str]
    """The runtimes that cannot be installed, with the reason.

    Runtimes that the command named are never here: they raise.
    """
    findings: list[Finding]
    """One finding for each runtime and target: whether it ran a network."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds for the steps `fetch`, `bring` and `prove`."""

    @property
    def ok(self) -> bool:
        """True if each runtime ran a network."""
        return bool(self.findings) and all(finding.state != "failed" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON types, for `--json`."""
        return {
            "device": self.device,
            "platform": str(self.platform),
            "environment": self.environment,
            "packages": {wheel.name: str(wheel.version) for wheel in self.wheels},
            "brought_bytes": self.brought_bytes,
            "unavailable": self.unavailable,
            "runtimes": [finding.to_json() for finding in self.findings],
            "seconds": {key: round(value, 3) for key, value in self.seconds.items()},
            "ok": self.ok,
        }


def set_up(
    name: str,
    inventory: Inventory,
    runtimes: Sequence[str] | None = None,
    *,
    accelerator: str | None = None,
    find_links: Sequence[str] = (),
    say: Callable[[str], object] = lambda _: None,
) -> SetUp:
    """Install runtimes on a device, in an environment that only latlab uses, and let each of them run a network.

    Args:
        name: the device.
        inventory: the inventory that has it.
        runtimes: some of `INSTALLABLE`. By default those of the device's targets, else the usual ones that exist for
            it. Runtimes from an earlier setup stay.
        accelerator: `cpu` or `cuda`. By default `cuda` if a target of the device uses it or an earlier setup did.
        find_links: folders or pages with further wheels.
        say: called with the name of each step when it begins.

    Raises:
        LatlabError: the device cannot be reached, is in use, or has a platform without wheels; or pip is missing or
            finds nothing. A runtime that was installed but does not run is a finding, not an error.
    """
    config = inventory.device(name)
    named = _named(config, name, runtimes)
    owner = uuid.uuid4().hex
    began = time.perf_counter()
    say("greeting the device")
    with _worker(name, config, owner) as (_, hello):
        platform = Platform.of(name, hello.fields)
    wanted = list(dict.fromkeys([*named, *_private(hello)]))
    accelerator = accelerator or _accelerator(config, name, hello)
    if accelerator == "cuda" and not set(named) & set(ON_CUDA):
        raise BadInputError(f"{', '.join(named)} does not run on CUDA", f"Choose from: {', '.join(ON_CUDA)}.")
    say(f"choosing wheels for {platform}")
    fetcher = WheelFetcher(platform, cache_folder() / "wheels", find_links)
    wheels, unavailable = _fetch(fetcher, wanted, accelerator, needed=named if runtimes is not None else ())
    provided = [runtime for runtime in wanted if runtime not in unavailable]
    fetched = time.perf_counter()
    hashes = {wheel.path.name: _sha256(wheel) for wheel in wheels}
    environment = hashlib.sha256("\n".join(sorted(hashes.values())).encode()).hexdigest()[:32]

    def result(findings: list[Finding], brought_bytes: int, brought: float) -> SetUp:
        seconds = {"fetch": fetched - began, "bring": brought - fetched, "prove": time.perf_counter() - brought}
        return SetUp(name, platform, environment, wheels, brought_bytes, unavailable, findings, seconds)

    if hello.environment_id == environment:
        say("the device has all of them; running a network on each runtime")
        done = result(_prove(name, config, inventory, provided, accelerator), 0, time.perf_counter())
        if done.ok:
            return done
    size = sum(wheel.path.stat().st_size for wheel in wheels)
    say(f"sending {len(wheels)} wheels, {size / 1e6:.0f} MB")
    with _worker(name, config, owner) as (worker, _):
        for wheel in wheels:
            worker.push(wheel.path, hashes[wheel.path.name], ".whl")
        say("unpacking them there")
        listing = [{"sha256": hashes[wheel.path.name], "name": wheel.path.name} for wheel in wheels]
        worker.install(environment, listing, INSTALL_S + size / UNPACKED_BYTES_PER_S)
    brought = time.perf_counter()
    say("running a network on each runtime")
    return result(_prove(name, config, inventory, provided, accelerator), size, brought)


def _named(config: DeviceConfig, name: str, runtimes: Sequence[str] | None) -> list[str]:
    if runtimes is None:
        targets = [target.runtime for target in config.all_targets(name)] if config.targets else USUAL_RUNTIMES
        runtimes = [runtime for runtime in dict.fromkeys(targets) if runtime in INSTALLABLE]
    unknown = [runtime for runtime in runtimes if runtime not in INSTALLABLE]
    if unknown or not runtimes:
        raise BadInputError(
            f"{unknown[0] if unknown else 'no runtime of ' + name} is nothing to set up",
            f"Choose with --runtime from: {', '.join(INSTALLABLE)}.",
        )
    return list(dict.fromkeys(runtimes))


def _private(hello: Hello) -> list[str]:
    """Return the runtimes of the device's private environment.

    They are installed again, because an environment is replaced as a whole.
    """
    return [runtime for runtime in INSTALLABLE if runtime in hello.environment_runtimes]


def _accelerator(config: DeviceConfig, name: str, hello: Hello) -> str:
    before = [hello.runtime(runtime).package for runtime in _private(hello)]
    cuda = any(target.accelerator == "cuda" for target in config.all_targets(name)) or "onnxruntime-gpu" in before
    return "cuda" if cuda else "cpu"


@contextmanager
def _worker(name: str, config: DeviceConfig, owner: str) -> Iterator[tuple[WorkerClient, Hello]]:
    """Yield a worker that has answered a hello, with its reply; its failures become `LatlabError`."""
    try:
        with open_transport(config, name, INSTALLABLE[0]) as transport:
            worker = WorkerClient(transport)
            yield worker, worker.hello(HELLO_S, owner, IDLE_S)
    except WorkerError as error:
        message = f"device {name}: {error.message}"
        if error.kind == "busy":
            raise DeviceBusyError(message, busy_advice(error.message, config)) from error
        if error.kind == "no_space":
            raise DeviceFaultError(message, "Free some space, or name another folder with `work`.") from error
        raise LatlabError(message) from error
    except ConnectError as error:
        raise LatlabError(error.message, error.advice or None) from error
    except DeviceLostError as error:
        raise LatlabError(error.message, f"Look at it; then again: latlab setup {name}") from error


def _fetch(
    fetcher: WheelFetcher, runtimes: Sequence[str], accelerator: str, *, needed: Sequence[str]
) -> tuple[list[Wheel], dict[str, str]]:
    """Return wheels for all runtimes together, because they share numpy, and the runtimes for which there are none."""
    roots: list[str] = []
    indexes: list[str] = []
    bare: list[str] = []
    wheels: list[Wheel] = []
    unavailable: dict[str, str] = {}
    for runtime in runtimes:
        try:
            ways = choices(runtime, fetcher.platform, accelerator)
            failures: list[NoWheelError] = []
            for way in ways:
                try:
                    wheels = fetcher.fetch([*roots, *way.requirements], [*indexes, *way.indexes], [*bare, *way.bare])
                except NoWheelError as error:
                    failures.append(error)
                else:
                    roots += way.requirements
                    indexes += way.indexes
                    bare += way.bare
                    break
            else:
                raise UnavailableError(_explain(runtime, ways, failures))
        except UnavailableError as error:
            if runtime in needed:
                raise LatlabError(str(error), "Choose others with --runtime.") from None
            unavailable[runtime] = str(error)
    if not wheels:
        raise LatlabError("; ".join(unavailable.values()))
    return wheels, unavailable


def _explain(runtime: str, ways: Sequence[Choice], failures: Sequence[NoWheelError]) -> str:
    tried = [f"{' with '.join(way.requirements)} (no {no.requirement})" for way, no in zip(ways, failures, strict=True)]
    found = f"no wheels of {runtime} for {failures[0].platform}: neither {', nor '.join(tried)}"
    if any(failure.offline for failure in failures):
        found += "; but not every package index was reached from this machine, so try again with a connection"
    return found


def _prove(
    name: str, config: DeviceConfig, inventory: Inventory, runtimes: Sequence[str], accelerator: str
) -> list[Finding]:
    """Return the doctor's findings about these runtimes, from a worker that uses the new environment."""
    asked = [(runtime, accelerator if runtime in ON_CUDA else "cpu") for runtime in runtimes]
    targets = [TargetsConfig.model_validate({"runtime": one, "accelerator": on}) for one, on in asked]
    narrowed = config.model_copy(update={"targets": targets})
    (examination,) = examine([name], Inventory({name: narrowed}, inventory.path))
    labels = [f"runtime {runtime}" for runtime in runtimes]
    labels += [f"target {str(one).partition('/')[2]}" for one in narrowed.all_targets(name)]
    findings = [finding for finding in examination.findings if finding.check in labels]
    # If the doctor stopped before the runtimes, its failure is the result.
    return findings or [finding for finding in examination.findings if finding.state == "failed"]


def _sha256(wheel: Wheel) -> str:
    with wheel.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
