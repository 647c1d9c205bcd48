"""One network on one device: run for minutes, or profiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from latlab.harness import sustained
from latlab.harness.architectures import parse_archs, space_to_measure
from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import ExportRequest
from latlab.harness.exporters.campaign_options import campaign_options
from latlab.harness.fleet.jobs import Job, RunListener
from latlab.harness.lab.base import LabBase, only_device
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.models.input_options import InputOptions
from latlab.harness.models.read import read_model
from latlab.harness.profiling import NetworkProfile, ProfileRun
from latlab.harness.store.vocabulary import USER_MODEL_SPACE, Selection
from latlab.harness.targets import Target
from latlab.search_spaces import Architecture

__all__ = ["RunningOne"]


class RunningOne(LabBase):
    """The verbs that run one network on one device, and make no label."""

    def sustain(
        self,
        device: str | Target = "local",
        *,
        space: str | None = None,
        arch: str | Architecture | None = None,
        model: str | Path | None = None,
        inputs: InputOptions = InputOptions(),
        minutes: float = 30.0,
        options: TargetOptions = TargetOptions(),
        seed: int = 0,
        as_written: bool = False,
        listener: RunListener = RunListener(),
        follow: Callable[[sustained.SustainedRun], None] | None = None,
    ) -> sustained.SustainedResult:
        """Run one network for minutes without a pause, and return how heat and power limits change its latency.

        Each call begins a session of its own, because a device that has cooled down meanwhile cannot continue an
        earlier one. Every pass is stored at once, so a run that is interrupted still has a result.

        Args:
            device: name of the inventory, or a full target; of a device's several targets the first is taken.
            space, arch: the network; or else
            model, inputs: a model of your own, as for `measure`.
            minutes: duration on the device's clock.
            options, seed, as_written, listener: as for `measure`.
            follow: called once with the run, whose `passes` grow while it lasts. After an interruption,
                `SustainedRun.result` returns what was measured until then.

        Raises:
            BadInputError: if the arguments make no sense, or a name is unknown.
            LatlabError: why the network cannot be exported, or why the device failed before the first pass.
        """
        options.single()
        if model is not None:
            own, targets, artifact = self._own_model(model, inputs, device, options, listener)
            target = only_device(targets)
            where, network = USER_MODEL_SPACE, own.name
            identity = {"sha256": artifact.sha256, **own.identity}
        elif space is None or arch is None:
            raise BadInputError("say which network: a space and an architecture, or a model of your own")
        else:
            target = only_device(self.targets(device, options))
            searched = space_to_measure(space)
            target.check_exported(searched)
            (one,) = parse_archs(searched, [arch])
            where, network, identity = space, one.text, campaign_options(target, as_written)
            request = ExportRequest(
                space, network, target.format, target.batch_size, target.precision, seed, as_written
            )
            artifact = self._exported(request)
        campaign = self.store.campaign(target, where, sustained.policy_of(target), seed, Selection.SUSTAIN, identity)
        with self.store.writing():
            sustained.close_earlier(self.store, campaign)
        session = MeasurementSession(self.store, campaign, self.store.latest_session(campaign) + 1)
        run = sustained.SustainedRun(session, artifact, network, f"{where}/{network}", 60 * minutes)
        if follow:
            follow(run)
        errors = self.run_jobs([Job(target, run.work)], listener)
        result = run.result()
        if errors and not result.passes:
            raise errors[0]
        return replace(result, error=errors[0].message) if errors else result

    def profile(
        self,
        subject: str | Path | Architecture,
        device: str | Target = "local",
        *,
        space: str | None = None,
        inputs: InputOptions = InputOptions(),
        options: TargetOptions = TargetOptions(),
        seed: int = 0,
        as_written: bool = False,
        listener: RunListener = RunListener(),
    ) -> NetworkProfile:
        """Profile one network: the time of each of its operators, from the runtime's own profiler.

        Nothing of it goes into the store, because it makes no label.

        Args:
            subject: a model of your own, as `model` of `measure`; with `space`, an architecture of that space.
            device: name of the inventory, or a full target; of a device's several targets the first is taken.
            inputs, options, seed, as_written, listener: as for `measure`.

        Raises:
            BadInputError: if the arguments make no sense, a name is unknown, or the runtime has no profiler.
            LatlabError: why the network cannot be exported or run, or why the device failed.
        """
        options.single()
        if space is None:
            own, targets, artifact = self._own_model(str(subject), inputs, device, options, listener, profiled=True)
            target, network = only_device(targets), own.name
        else:
            target = only_device(self.targets(device, options))
            target.check_profiler()
            searched = space_to_measure(space)
            target.check_exported(searched)
            (one,) = parse_archs(searched, [str(subject) if isinstance(subject, Path) else subject])
            network = one.text
            artifact = self._exported(
                ExportRequest(space, network, target.format, target.batch_size, target.precision, seed, as_written)
            )
        label = f"{space or USER_MODEL_SPACE}/{network}"
        run = ProfileRun(target, artifact, network, label, read_model(artifact.path).operators)
        errors = self.run_jobs([Job(target, run.work)], listener)
        if errors:
            raise errors[0]
        return run.result()
