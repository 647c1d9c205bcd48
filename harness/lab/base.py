"""What all verbs of `Lab` stand on: the store, the inventory, the cache, and the networks that are to be run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latlab.harness.active_learning.kept_fits import KeptFits
from latlab.harness.active_learning.prediction import KeptPredictors
from latlab.harness.devices.target_selection import TargetOptions, select_targets, targets_of_model
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters import Artifact, ArtifactCache, CacheError, ExportError, ExportRequest
from latlab.harness.exporters.service import Exports
from latlab.harness.fleet.fleet import run_jobs
from latlab.harness.fleet.jobs import Job, RunListener
from latlab.harness.inventory.inventory import load_inventory
from latlab.harness.models.input_options import InputOptions
from latlab.harness.models.own_model import OwnModel, locate
from latlab.harness.paths import cache_folder
from latlab.harness.store.place import StorePath
from latlab.harness.store.store import Store
from latlab.harness.targets import Devices, Target

if TYPE_CHECKING:
    from latlab.harness.active_learning.learnt_costs import LearntCosts

__all__ = ["LabBase", "only_device"]


class LabBase:
    """A store, an inventory and a cache of exported networks. Arguments: `Lab`."""

    def __init__(
        self,
        store: str | StorePath = "latlab.db",
        *,
        inventory: str | Path | None = None,
        cache: str | Path | None = None,
    ) -> None:
        self.inventory = load_inventory(inventory)
        self._cache_folder = Path(cache) if cache is not None else cache_folder() / "artifacts"
        self.store = Store(store)
        self._predictors = KeptPredictors(self.store)
        self._costs: KeptFits[LearntCosts] = KeptFits(self.store)

    @property
    def cache(self) -> ArtifactCache:
        """The cache of exported networks. Raises `BadInputError` if its folder cannot be used."""
        try:
            return ArtifactCache(self._cache_folder)
        except CacheError as error:
            raise BadInputError(str(error)) from error

    def targets(self, devices: Devices, options: TargetOptions = TargetOptions()) -> list[Target]:
        """Return the targets that devices and options mean.

        Args:
            devices: names of the inventory, full targets, or `all`.
            options: how networks run there; if none is given, a device stands for all its own targets.

        Raises:
            BadInputError: for an unknown device, or a full target together with options.
        """
        return select_targets(self.inventory, devices, options)

    def run_jobs(self, jobs: Sequence[Job], listener: RunListener = RunListener()) -> list[LatlabError]:
        """Run jobs on their devices, side by side, and return the errors of those that failed (`fleet.run_jobs`)."""
        return run_jobs(self.store, self.inventory, self.cache, jobs, listener) if jobs else []

    def _own_model(
        self,
        model: str | Path,
        inputs: InputOptions,
        devices: Devices,
        options: TargetOptions,
        listener: RunListener,
        *,
        profiled: bool = False,
    ) -> tuple[OwnModel, list[Target], Artifact]:
        """Return a model of the user's own, the targets that run it, and its file.

        Args:
            options: with one runtime and one batch size at most.

        Raises:
            BadInputError: if there is no such model, or it contradicts the options.
        """
        own = locate(str(model), inputs, options.one_runtime(), options.one_batch_size())
        targets, skipped = targets_of_model(self.inventory, devices, options, own)
        if profiled:  # before anything is exported
            only_device(targets).check_profiler()
        for remark in (*skipped, *own.inputs.remarks):
            if listener.announce:
                listener.announce(f"{own.name}: {remark}")
        return own, targets, own.artifact(self._cache_folder)

    def _exported(self, request: ExportRequest) -> Artifact:
        with Exports(self.cache) as exports:
            try:
                return exports.submit(request).result()
            except ExportError as error:
                raise LatlabError(f"{request.arch} cannot be exported: {error.message}") from error


def only_device(targets: Sequence[Target]) -> Target:
    """Return the first target. Raises `BadInputError` if they are of several devices."""
    if any(other.device != targets[0].device for other in targets):
        raise BadInputError(f"this works on one device at a time, and there are {len(targets)} targets", "Name one.")
    return targets[0]
