"""A profile in progress: passes without the profiler and profiles of the same network, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from latlab.agents.protocol.profile_request import ProfileRequest
from latlab.harness.devices.worker_client import LoadedModel
from latlab.harness.errors import LatlabError
from latlab.harness.exporters import Artifact
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.profiling.summary import NetworkProfile
from latlab.harness.store.store import Measurement
from latlab.harness.targets import Target
from latlab.harness.telemetry.operator_profile import OperatorProfile
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.timing_policy import TimingPolicy
from latlab.harness.transports import WorkerError

__all__ = ["POLICY", "ProfileRun"]

POLICY = TimingPolicy("profile", warmup=3, runs=20, trim=0.1, passes=1, spread=0, pass_s=0.1, overheads=100)
"""How the passes around the profiles are timed."""
REQUEST = ProfileRequest(warmup=3, runs=10)
"""The inferences of one profile."""
ROUNDS = 8
"""Profiles, each with a pass before and after it: if a device does something else now and then, one is undisturbed."""
MOST_S = 60.0
"""Seconds after which no further round begins, for networks that take seconds."""


class ProfileRun:
    """The work of a job (`fleet.jobs.Job.work`) that profiles one network.

    Nothing of it goes into the store: a profile is no label. If the connection to the device is lost, the job may be
    tried again, and begins anew.

    Args:
        target: where and how the network runs.
        artifact: the exported network.
        network: its name: an architecture or a model file.
        label: the name that the device is given for messages.
        file_operators: number of operators of each type in the model file; empty if it is not known.
    """

    def __init__(
        self, target: Target, artifact: Artifact, network: str, label: str, file_operators: Mapping[str, int]
    ) -> None:
        self._target, self._artifact, self._network, self._label = target, artifact, network, label
        self._file_operators = file_operators
        self._loaded: LoadedModel | None = None
        self._passes: list[RecordedPass] = []
        self._profiles: list[OperatorProfile] = []
        self._simulated = False

    def work(self, measurer: Measurer, _: Callable[[Measurement], None]) -> None:
        """Time and profile the network in turn.

        Raises:
            LatlabError: why the network fails, or why there is no profile.
            StoppedError: if the jobs are stopped.
            DeviceLostError: if the connection is lost.
        """
        device = measurer.device
        self._simulated = device.hello.is_simulated
        self._passes, self._profiles = [], []
        device.wait_until_fit(measurer.check)
        began = time.monotonic()
        try:
            self._loaded = device.load(self._artifact, self._label)
            self._passes.append(device.time(self._loaded, POLICY))
            for _number in range(ROUNDS):
                measurer.check()
                self._profiles.append(device.profile(self._loaded, REQUEST))
                measurer.check()
                self._passes.append(device.time(self._loaded, POLICY))
                if time.monotonic() - began > MOST_S:
                    break
        except WorkerError as error:
            raise LatlabError(f"{self._network} fails on {self._target} ({error.kind}): {error.message}") from error
        measurer.timed_s += sum(one.busy_s for one in self._passes)

    def result(self) -> NetworkProfile:
        """Return the profile, once `work` has come to its end."""
        assert self._loaded is not None
        return NetworkProfile(
            target=str(self._target),
            network=self._network,
            threads=self._target.threads,
            passes=tuple(self._passes),
            profiles=tuple(self._profiles),
            facts=self._loaded.facts,
            file_operators=self._file_operators,
            simulated=self._simulated,
        )
