"""One stay at a device: the store is held, the worker runs, exporters stand by."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Self

from latlab.agents.timing import TimingPolicy
from latlab.harness.device import DeviceSession
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters import Artifact, ArtifactCache, CacheError, ExportPool, ExportRequest
from latlab.harness.inventory import Inventory
from latlab.harness.measure import Engine
from latlab.harness.store import Campaign, Measurement, Store
from latlab.harness.targets import Target
from latlab.harness.transports import DeviceLostError

__all__ = ["Sitting"]

MAX_EXPORTERS = 8


class Sitting:
    """A context manager: what it starts ends with it, however it ends.

    Args:
        seed: of the weights.
        as_written: whether networks keep their dead edges and published forms.
    """

    def __init__(
        self,
        store: Store,
        inventory: Inventory,
        cache: ArtifactCache,
        target: Target,
        *,
        seed: int = 0,
        as_written: bool = False,
    ) -> None:
        self._store, self._inventory, self._cache, self.target = store, inventory, cache, target
        self._seed, self._as_written = seed, as_written
        self.timed_s = 0.0
        """Seconds that the device spent in warm-up and samples."""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._store.writing())
            device = self._inventory.device(self.target.device)
            self.device = stack.enter_context(DeviceSession(self.target.device, device, self.target))
            self.device.register(self._store)
            spare = self.device.spare_cpus
            self._workers = min(len(spare), MAX_EXPORTERS) if spare else 1
            self._pool = stack.enter_context(ExportPool(self._cache, self._workers, spare))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stack.__exit__(*exc)

    def run(
        self,
        campaign: Campaign,
        session: int,
        wanted: Iterable[tuple[str, str]],
        submit: Callable[[str], Future[Artifact]] | None = None,
        passes: int | None = None,
    ) -> Iterator[Measurement]:
        """Measure (architecture, role) pairs in a session of a campaign, yielding rows as they are finished.

        Args:
            submit: gives an architecture's artifact; default: export it.
            passes: put networks aside after so many (`Engine.run`); default: all that the policy asks for.
        """
        engine = Engine(
            self._store,
            campaign,
            session,
            TimingPolicy(**campaign.policy),
            self.device,
            submit or (lambda arch: self._export(campaign.space, arch)),
            exports=self._workers,
            overlap=self.device.spare_cpus is not None,
        )
        try:
            yield from engine.run(wanted, passes)
        except DeviceLostError as error:
            raise LatlabError(
                f"device {self.target.device} was lost: {error}",
                "Everything measured so far is in the store; the same command continues.",
            ) from error
        except CacheError as error:
            raise BadInputError(str(error), "Everything measured so far is in the store.") from error
        finally:
            self.timed_s += engine.timed_s

    def _export(self, space: str, arch: str) -> Future[Artifact]:
        target = self.target
        request = ExportRequest(
            space, arch, target.format, target.batch_size, target.precision, self._seed, self._as_written
        )
        kept = self._cache.get(request)
        if kept is None:
            return self._pool.submit(request)
        # What was spent when it was made was not spent now.
        future: Future[Artifact] = Future()
        future.set_result(replace(kept, build_s=0.0, export_s=0.0, parity_s=0.0))
        return future
