"""Comparisons: networks against each other, targets against each other, today against a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from latlab.harness.architectures import parse_archs, space_to_measure
from latlab.harness.compare.baseline import baseline_checks
from latlab.harness.compare.between_targets import TargetComparison, compare_targets
from latlab.harness.compare.contestants import Candidate, comparison_runs, named_apart
from latlab.harness.compare.gate import GateCheck, GateOutcome, unmeasured_checks
from latlab.harness.compare.result import ComparisonResult, Question
from latlab.harness.compare.run import ComparisonRun
from latlab.harness.devices.target_selection import TargetOptions, target_of_model
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import Artifact, ExportRequest
from latlab.harness.exporters.campaign_options import campaign_options
from latlab.harness.fleet.jobs import Job, RunListener
from latlab.harness.lab.measuring import Measuring
from latlab.harness.models.input_options import InputOptions
from latlab.harness.models.own_model import OwnModel, locate
from latlab.harness.store.place import StorePath
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import USER_MODEL_SPACE
from latlab.harness.targets import Devices, Target
from latlab.search_spaces import Architecture

__all__ = ["Comparing"]

MOST_SESSIONS = 3
"""Most sessions of a check against a baseline."""


class Comparing(Measuring):
    """The verbs that compare; what a comparison of labels lacks is measured first."""

    def compare(
        self,
        networks: Sequence[str | Path | Architecture],
        devices: Devices = "local",
        *,
        space: str | None = None,
        inputs: InputOptions = InputOptions(),
        question: Question = Question(),
        options: TargetOptions = TargetOptions(),
        seed: int = 0,
        as_written: bool = False,
        listener: RunListener = RunListener(),
        follow: Callable[[Sequence[ComparisonRun]], None] | None = None,
    ) -> list[ComparisonResult]:
        """Compare networks on devices: their passes take turns, and their ratios get intervals and verdicts.

        Each call begins a session of its own; every pass is in the store at once. It makes no labels.

        Args:
            networks: at least two models of your own, or with `space` architectures. The same one may come twice.
            devices: names of the inventory, full targets, or `all`; they work side by side.
            space: the architectures' search space; None for models of your own.
            inputs: what the models' files leave open of their inputs; the same for all.
            question: what is asked, with which confidence, and how long it may take.
            options: as for `measure`. Models run in the runtimes that take their files.
            seed: of the weights, and of the order of loading and timing.
            as_written: export architectures as published, with their dead edges.
            listener: what is called during the run.
            follow: called once with the runs, one for each target. After an interruption, `ComparisonRun.result`
                returns what was measured until then.

        Returns:
            One result for each target, in the order of `devices`.

        Raises:
            BadInputError: if the arguments make no sense, or a name is unknown.
            LatlabError: why a network cannot be exported, or why all devices failed before anything was compared.
        """
        if len(networks) < 2:
            raise BadInputError("a comparison takes at least two networks", "The same one may be named twice.")
        if space is None:
            models = [str(one) for one in networks]
            runs = []
            for alone in options.by_runtime():
                found = [self._own_candidate(one, alone, listener) for one in _own_models(models, inputs, alone)]
                targets = self.targets(devices, replace(alone, batch_size=None, precision=None))
                candidates = named_apart(models, found)
                runs += comparison_runs(self.store, self.inventory, targets, candidates, question, seed)
        else:
            candidates = self._candidates(space, networks, seed, as_written)
            targets = self.targets(devices, options)
            runs = comparison_runs(self.store, self.inventory, targets, candidates, question, seed)
        if follow:
            follow(runs)
        jobs = [Job(run.target, run.work) for run in runs]
        errors = self.run_jobs(jobs, listener)
        results = [
            replace(run.result(), error=str(job.error)) if job.error else run.result()
            for run, job in zip(runs, jobs, strict=True)
        ]
        if errors and not any(one.blocks for one in results):
            raise errors[0]
        return results

    def compare_targets(
        self,
        targets: Sequence[str | Target],
        *,
        space: str,
        count: int | None = None,
        archs: Sequence[str | Architecture] | None = None,
        policy: str = "default",
        seed: int = 0,
        as_written: bool = False,
        listener: RunListener = RunListener(),
    ) -> TargetComparison:
        """Compare two targets by the labels of the same networks; what is missing is measured first.

        Args:
            targets: two full targets, or devices with one target each.
            space, count, archs, policy, seed, as_written, listener: as for `measure`.

        Raises:
            BadInputError: if the arguments make no sense, or no network has a label on both targets.
            LatlabError: why a device failed, if nothing could be measured at all.
        """
        chosen = [self.targets(one) for one in targets]
        if len(chosen) != 2 or any(len(one) != 1 for one in chosen):
            raise BadInputError(
                "two targets are compared", "Write each in full, for example local/onnxruntime/cpu/fp32/t1/b1."
            )
        first, second = (str(one[0]) for one in chosen)
        found = self.measure(
            [first, second],
            space=space,
            count=count,
            archs=archs,
            policy=policy,
            seed=seed,
            as_written=as_written,
            raw=False,
            listener=listener,
        )
        return compare_targets(found.rows, first, second, space, found.failures)

    def check_baseline(
        self,
        baseline: str | StorePath,
        limit_percent: float,
        devices: Devices = "local",
        *,
        networks: Sequence[str | Path | Architecture],
        space: str | None = None,
        inputs: InputOptions = InputOptions(),
        options: TargetOptions = TargetOptions(),
        policy: str = "default",
        seed: int = 0,
        as_written: bool = False,
        confidence: float = 0.95,
        listener: RunListener = RunListener(),
    ) -> list[GateCheck]:
        """Measure networks now, and check that none has become slower than its label in a baseline store.

        While a check is undecided, its network is measured again, in up to three sessions.

        Labels of another day are not paired: the error between sessions counts (`statistics.unpaired`), and a paired
        `compare` of the old file with the new one finds much smaller differences.

        Args:
            baseline: a store with labels of the same names on the same targets.
            limit_percent: percent by which a network may be slower.
            networks: models of your own, or with `space` architectures.
            space, devices, inputs, options, policy, seed, as_written, listener: as for `measure`.
            confidence: of each verdict.

        Raises:
            BadInputError: if the arguments make no sense, or there is no such store.
            LatlabError: why a device failed, if nothing could be measured at all.
        """
        old = Store(baseline, must_exist=True)
        shared: dict[str, Any] = {
            "policy": policy,
            "seed": seed,
            "as_written": as_written,
            "options": options,
            "listener": listener,
            "raw": False,
            "new_session": True,
        }
        together = [networks] if space is not None else [[one] for one in networks]
        checks: list[GateCheck] = []
        for part in together:
            what: dict[str, Any] = {"model": str(part[0]), "inputs": inputs}
            frames: list[pd.DataFrame] = []
            while len(frames) < MOST_SESSIONS:
                found = self.measure(devices, **({"space": space, "archs": part} if space else what), **shared)
                frames.append(found.rows)
                of_part = baseline_checks(self.store, frames, old, limit_percent, confidence)
                of_part += unmeasured_checks(found, [str(one) for one in part], str(old.path), limit_percent)
                if not any(one.outcome is GateOutcome.UNDECIDED for one in of_part):
                    break
            checks += of_part
        return checks

    def _own_candidate(self, own: OwnModel, options: TargetOptions, listener: RunListener) -> Candidate:
        """Return a model of the user's own, for a comparison. Raises `BadInputError`."""
        own.check_precisions(options.precision)
        for remark in own.inputs.remarks:
            if listener.announce:
                listener.announce(f"{own.name}: {remark}")
        artifact = own.artifact(self._cache_folder)
        return Candidate(
            own.name,
            USER_MODEL_SPACE,
            lambda usual: target_of_model(own, usual),
            lambda _: artifact,
            lambda _: own.identity,
        )

    def _candidates(
        self, space: str, archs: Sequence[str | Path | Architecture], seed: int, as_written: bool
    ) -> list[Candidate]:
        """Return architectures of a space, for a comparison."""
        # One by one: `parse_archs` takes each only once, but a network may be compared with itself.
        given = [str(arch) if isinstance(arch, Path) else arch for arch in archs]
        texts = [parse_archs(space_to_measure(space), [arch])[0].text for arch in given]

        def artifact(text: str, target: Target) -> Artifact:
            target.check_exported(space_to_measure(space))
            request = ExportRequest(space, text, target.format, target.batch_size, target.precision, seed, as_written)
            return self._exported(request)

        def options(target: Target) -> dict[str, Any]:
            return campaign_options(target, as_written)

        return [Candidate(text, space, lambda target: target, partial(artifact, text), options) for text in texts]


def _own_models(networks: Sequence[str], inputs: InputOptions, options: TargetOptions) -> list[OwnModel]:
    """Return the models of a comparison, each with those options that name something of it.

    Raises:
        BadInputError: as `locate`; or if an option names something of none of them.
    """
    runtime, batch_size = options.one_runtime(), options.one_batch_size()
    found = [locate(one, inputs, runtime, batch_size, one_of_several=True) for one in networks]
    used = {word for own in found for word in own.options.words()}
    for word in inputs.words():
        if word not in used:
            raise BadInputError(f"{word} names an input or a side of none of {', '.join(networks)}")
    return found
