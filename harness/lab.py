"""The Python interface of latlab: the same verbs as on the command line.

>>> from latlab.harness import Lab
>>> result = Lab("latlab.db").onboard("local", space="nasbench201", budget=20)  # doctest: +SKIP
>>> result.table.sort_values("latency_ms").head()                               # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial, wraps
from inspect import isfunction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from latlab.harness import sustained
from latlab.harness.active_learning.block_latencies import block_latencies
from latlab.harness.active_learning.fitted_predictor import FittedPredictor
from latlab.harness.active_learning.holdout import holdout_of
from latlab.harness.active_learning.imported_labels import import_labels
from latlab.harness.active_learning.onboarding import Onboarding, OnboardingPlan, Onboardings, onboard, save_onboarding
from latlab.harness.active_learning.prediction import (
    KeptPredictors,
    Predictions,
    predict,
    source_filter_of,
    sources_of,
    stored_target,
    trained_predictor,
)
from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_for
from latlab.harness.active_learning.source_devices import ALL, source_devices
from latlab.harness.architectures import (
    blocks_of,
    is_block_space,
    parse_archs,
    sample_space,
    some_blocks,
    space_named,
    space_to_measure,
)
from latlab.harness.compare.baseline import baseline_checks
from latlab.harness.compare.between_targets import TargetComparison, compare_targets
from latlab.harness.compare.contestants import Candidate, comparison_runs, named_apart
from latlab.harness.compare.gate import GateCheck, GateOutcome, unmeasured_checks
from latlab.harness.compare.result import ComparisonResult, Question
from latlab.harness.compare.run import ComparisonRun
from latlab.harness.devices.target_selection import (
    TargetOptions,
    select_targets,
    target_of_model,
    targets_of_model,
)
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters import Artifact, ArtifactCache, CacheError, ExportError, ExportRequest
from latlab.harness.exporters.campaign_options import campaign_options
from latlab.harness.exporters.service import Exports
from latlab.harness.fleet.campaigns import Measurements, measure_campaigns
from latlab.harness.fleet.fleet import run_jobs
from latlab.harness.fleet.jobs import Job, RunListener
from latlab.harness.inventory.inventory import load_inventory, policy_named
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.models.input_options import InputOptions
from latlab.harness.models.own_model import OwnModel, locate
from latlab.harness.models.read import read_model
from latlab.harness.paths import cache_folder, whole_folder, writable_folder
from latlab.harness.profiling import NetworkProfile, ProfileRun
from latlab.harness.statistics.ranking import Resolve
from latlab.harness.store.distributions import with_distributions
from latlab.harness.store.own_labels import KeptLabels
from latlab.harness.store.store import Campaign, Store
from latlab.harness.store.tables import LABELS
from latlab.harness.store.vocabulary import USER_MODEL_SPACE, Role, Selection
from latlab.harness.targets import Target
from latlab.harness.timing_policy import TimingPolicy
from latlab.predictors import SourceDevice
from latlab.search_spaces import Architecture, BlockSpace, SearchSpace

if TYPE_CHECKING:
    from latlab.harness.quality.assessment import Quality

__all__ = ["Lab", "plain_arguments"]

MOST_SESSIONS = 3
"""Most sessions of a check against a baseline."""


Class = TypeVar("Class", bound=type)


def plain_arguments(kind: Class) -> Class:
    """Have the public methods of a class, and its constructor, take NumPy's numbers where they take Python's.

    A seed of a store and of a random draw is an `int`, nothing else.
    """
    for name, method in list(vars(kind).items()):
        if isfunction(method) and (name == "__init__" or not name.startswith("_")):
            setattr(kind, name, _taking_plain(method))
    return kind


def _taking_plain(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        return method(*map(_plain, arguments), **{name: _plain(value) for name, value in named.items()})

    return call


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.integer | np.floating | np.bool_) else value


@plain_arguments
class Lab:
    """A store, an inventory and a cache of exported networks, with the verbs that work on them.

    Args:
        store: file that all measurements go to; it is created if it does not exist.
        inventory: file that describes the devices; default `inventory.yaml` if it exists. The device `local` always
            exists.
        cache: folder of exported networks; default: one in the user's cache folder.
    """

    def __init__(
        self, store: str | Path = "latlab.db", *, inventory: str | Path | None = None, cache: str | Path | None = None
    ) -> None:
        self.inventory = load_inventory(inventory)
        self._cache_folder = Path(cache) if cache is not None else cache_folder() / "artifacts"
        self.store = Store(store)
        self._predictors = KeptPredictors(self.store)

    @property
    def cache(self) -> ArtifactCache:
        """The cache of exported networks. Raises `BadInputError` if its folder cannot be used."""
        try:
            return ArtifactCache(self._cache_folder)
        except CacheError as error:
            raise BadInputError(str(error)) from error

    # Measuring

    def measure(
        self,
        devices: str | Sequence[str] = "local",
        *,
        space: str | None = None,
        count: int | None = None,
        archs: Sequence[str | Architecture] | None = None,
        blocks: bool = False,
        model: str | Path | None = None,
        inputs: InputOptions = InputOptions(),
        options: TargetOptions = TargetOptions(),
        policy: str = "default",
        seed: int = 0,
        new_session: bool = False,
        as_written: bool = False,
        raw: bool = True,
        resolve: Resolve | None = None,
        listener: RunListener = RunListener(),
    ) -> Measurements:
        """Measure `count` random architectures of a space, the listed ones, its blocks, or a model of your own.

        The same call continues its campaign; a larger count extends it; `new_session` measures again.

        Args:
            devices: names of the inventory, full targets, or `all`; they work side by side.
            space: name of the search space; None for a model of your own.
            count: number of random architectures.
            archs: canonical strings of architectures.
            blocks: measure the blocks that networks of the space are made of, each alone, `count` of them or all, for a
                lookup table. They are a space of their own (e.g. `fbnet-blocks`).
            model: a model file (ONNX, TFLite, TorchScript, `torch.export`) or `package.module:factory`, whose code is
                run here.
            inputs: what the model's file leaves open of its inputs: shapes, ranges, values.
            options: runtime, accelerator, threads and batch size; without any, a device's own targets are measured.
            policy: how networks are timed: name of a preset, or of one of the inventory's policies.
            seed: seed of the random architectures, of the weights, and of the order of measuring.
            new_session: measure everything again, in a session of its own.
            as_written: export networks as published, with their dead edges.
            raw: add a column `passes`: raw samples in ns, a list for each pass.
            resolve: a ranking question: passes are added where intervals overlap and the order matters to it. The same
                call continues it.
            listener: what is called during the run.

        Raises:
            BadInputError: if the arguments make no sense, or a name is unknown.
            LatlabError: why the device failed, if there is no row at all.
        """
        named = policy_named(policy, self.inventory)
        submit: Callable[[str], Future[Artifact]] | None = None
        if model is not None:
            own, targets, artifact = self._own_model(model, inputs, devices, options, listener)
            identity = {"sha256": artifact.sha256, **own.identity}
            campaigns = [
                self.store.campaign(target, USER_MODEL_SPACE, named, seed, own.name, identity) for target in targets
            ]
            texts, submit = [own.name], _ready(artifact)
        else:
            chosen_space, wanted = _networks(space, count, archs, blocks, seed, as_written)
            selection = Selection.RANDOM if archs is None else Selection.LISTED
            campaigns = self._campaigns(devices, options, chosen_space.name, named, seed, selection, as_written)
            texts = [arch.text for arch in wanted]
        return measure_campaigns(
            self.store,
            campaigns,
            texts,
            Role.LISTED,
            self.run_jobs,
            new_session=new_session,
            raw=raw,
            resolve=resolve,
            submit=submit,
            listener=listener,
        )

    def targets(self, devices: str | Sequence[str], options: TargetOptions = TargetOptions()) -> list[Target]:
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

    def sustain(
        self,
        device: str = "local",
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
        if model is not None:
            own, targets, artifact = self._own_model(model, inputs, device, options, listener)
            target = _only_device(targets)
            where, network = USER_MODEL_SPACE, own.name
            identity = {"sha256": artifact.sha256, **own.identity}
        elif space is None or arch is None:
            raise BadInputError("say which network: a space and an architecture, or a model of your own")
        else:
            target = _only_device(self.targets(device, options))
            (one,) = parse_archs(space_to_measure(space), [arch])
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
        device: str = "local",
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
        if space is None:
            own, targets, artifact = self._own_model(str(subject), inputs, device, options, listener, profiled=True)
            target, network = _only_device(targets), own.name
        else:
            target = _only_device(self.targets(device, options))
            target.check_profiler()
            target.check_exported()
            (one,) = parse_archs(space_to_measure(space), [str(subject)])
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

    def compare(
        self,
        networks: Sequence[str | Path | Architecture],
        devices: str | Sequence[str] = "local",
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
            candidates = named_apart(
                models, [self._own_candidate(one, options, listener) for one in _own_models(models, inputs, options)]
            )
            options = replace(options, batch_size=None, precision=None)
        else:
            candidates = self._candidates(space, [str(one) for one in networks], seed, as_written)
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
        targets: Sequence[str],
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
        baseline: str | Path,
        limit_percent: float,
        devices: str | Sequence[str] = "local",
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
        own.check_precision(options.precision)
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

    def _candidates(self, space: str, archs: Sequence[str], seed: int, as_written: bool) -> list[Candidate]:
        """Return architectures of a space, for a comparison."""
        # One by one: `parse_archs` takes each only once, but a network may be compared with itself.
        texts = [parse_archs(space_to_measure(space), [arch])[0].text for arch in archs]

        def artifact(text: str, target: Target) -> Artifact:
            target.check_exported()
            request = ExportRequest(space, text, target.format, target.batch_size, target.precision, seed, as_written)
            return self._exported(request)

        def options(target: Target) -> dict[str, Any]:
            return campaign_options(target, as_written)

        return [Candidate(text, space, lambda target: target, partial(artifact, text), options) for text in texts]

    def embed(
        self,
        devices: str | Sequence[str] = "local",
        *,
        space: str,
        options: TargetOptions = TargetOptions(),
        policy: str = "default",
        seed: int = 0,
        new_session: bool = False,
        listener: RunListener = RunListener(),
    ) -> Measurements:
        """Measure HELP's hardware embedding: the latencies of the space's ten reference architectures.

        Args:
            devices, options, policy, seed, new_session, listener: as for `measure`.

        Returns:
            Rows with the columns target, arch, latency_ms, stderr_ms, status, and embedding: the latency, scaled so
            that the least of the ten is 0 and the greatest is 1, as HELP feeds it to its predictor (NaN if the
            architecture failed).
        """
        texts = [arch.text for arch in space_to_measure(space).references()]
        if not texts:
            raise BadInputError(f"{space} has no reference architectures", "Embed the device in a whole space.")
        named = policy_named(policy, self.inventory)
        campaigns = self._campaigns(devices, options, space, named, seed, Selection.REFERENCES, as_written=False)
        found = measure_campaigns(
            self.store, campaigns, texts, Role.REFERENCE, self.run_jobs, new_session=new_session, listener=listener
        )
        rows = found.rows[["target", "arch", "latency_ms", "stderr_ms", "status"]].copy()
        grouped = rows.groupby("target", sort=False)["latency_ms"]
        span = grouped.transform("max") - grouped.transform("min")
        rows["embedding"] = (rows["latency_ms"] - grouped.transform("min")) / span.where(span > 0)
        return replace(found, rows=rows)

    def _campaigns(
        self,
        devices: str | Sequence[str],
        options: TargetOptions,
        space: str,
        policy: TimingPolicy,
        seed: int,
        selection: Selection,
        as_written: bool,
    ) -> list[Campaign]:
        return [
            self.store.campaign(target, space, policy, seed, selection, campaign_options(target, as_written))
            for target in self.targets(devices, options)
        ]

    def _own_model(
        self,
        model: str | Path,
        inputs: InputOptions,
        devices: str | Sequence[str],
        options: TargetOptions,
        listener: RunListener,
        *,
        profiled: bool = False,
    ) -> tuple[OwnModel, list[Target], Artifact]:
        """Return a model of the user's own, the targets that run it, and its file. Raises `BadInputError`."""
        own = locate(str(model), inputs, options.runtime, options.batch_size)
        targets, skipped = targets_of_model(self.inventory, devices, options, own)
        if profiled:  # before anything is exported
            _only_device(targets).check_profiler()
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

    def import_labels(self, files: str | Path | Sequence[str | Path], as_target: str, **how: Any) -> list[KeptLabels]:
        """Import labels that were measured elsewhere as those of a target: predictors, reports and onboarding use them.

        Importing again changes only labels that are different in the file.

        Args:
            files: one file or several; docs/own-labels.md describes their forms.
            as_target: a full target, or a part of it (`imported_labels.named_target`); `each` for the targets that the
                file names itself.
            how: `space`, `device`, `format`, `unit`, `arch_format`, `insist` as for `read_sources`; `as_written` if
                networks were timed with their dead edges.

        Raises:
            BadInputError: naming file and place of what is wrong; nothing is imported then.
        """
        named = [files] if isinstance(files, (str, Path)) else list(files)
        return import_labels(self.store, self.inventory, [Path(one) for one in named], as_target, **how)

    # Predicting

    def predict(
        self,
        target: str,
        *,
        space: str | None = None,
        archs: Sequence[str | Architecture] | None = None,
        predictor: PredictorOptions = PredictorOptions(),
        seed: int = 0,
    ) -> Predictions:
        """Predict latencies of architectures on a target, from what the store holds of it and of other devices.

        If the target has no measurements in `space`, predictors that can predict from their prior alone do so, with
        wide intervals; the others raise.

        Args:
            target: a full target; the device's name is enough if the store has only one target of it.
            space: name of the search space; None for the only one in which the target has measurements.
            archs: canonical strings; None for the whole space, or for a large sample of a space too large to list.
            predictor: the predictor, and what it learns from.
            seed: seed of the predictor's random choices.

        Raises:
            BadInputError: if there is nothing to predict from, or several spaces could be meant.
        """
        return predict(self.predictor(target, space=space, predictor=predictor, seed=seed), archs)

    def predictor(
        self,
        target: str,
        *,
        space: str | None = None,
        predictor: PredictorOptions = PredictorOptions(),
        seed: int = 0,
    ) -> FittedPredictor:
        """Return a predictor of latencies on a target, fitted to what the store holds of it and of other devices.

        It answers thousands of single questions a second, and can be saved. The same call returns the same one until a
        label that it depends on changes.

        Args:
            target, space, predictor, seed: as for `predict`.

        Raises:
            BadInputError: if there is nothing to learn from, or several spaces could be meant.
        """
        return self._predictors.get(self.inventory, target, space, predictor, seed)

    def sources(
        self,
        space: str,
        *,
        exclude_target: str | None = None,
        which: str | Sequence[str] = ALL,
        holdout: Sequence[str | Architecture] = (),
    ) -> list[SourceDevice]:
        """Return the source devices that a predictor may learn from: imported ones, and measured targets of the store.

        They have all their labels here. `onboard`, `predict` and `report` use those of at most 2,000 networks of each,
        drawn at random, but the same ones in each call and, as far as they have them, for all devices.

        Args:
            space: name of the search space.
            exclude_target: the target that the predictor is for. It is never its own source, nor is the same target
                under another name of its device, nor an imported copy of its labels. Other targets of its device are
                sources: they are measured already, and say much about it.
            which: `all`, `none`, or names: of imported sources, targets, or devices. With `all`, targets with fewer
                than ten labels are left out, and simulated ones if the target is real.
            holdout: architectures whose labels are left out of the sources measured on the target's own device.

        Raises:
            BadInputError: if a name is unknown, or is the target itself.
        """
        chosen_space = space_named(space)
        target = None if exclude_target is None else stored_target(self.store, exclude_target)
        rows = self.store.table(target=target, space=space, only=LABELS) if target is not None else None
        allowed = source_filter_of(self.inventory, target, rows, parse_archs(chosen_space, holdout))
        return source_devices(self.store, chosen_space, allowed, which)

    # The closed loop

    def onboard(
        self, device: str = "local", *, space: str, options: TargetOptions = TargetOptions(), **more: Any
    ) -> Onboarding:
        """Onboard one target: a full one, or the first of a device. Further arguments and errors: `onboard_fleet`."""
        return self.onboard_fleet([str(self.targets(device, options)[0])], space=space, **more)[0]

    def onboard_fleet(
        self,
        devices: str | Sequence[str],
        *,
        space: str,
        budget: int = 20,
        until_percent: float | None = None,
        holdout: int = 0,
        options: TargetOptions = TargetOptions(),
        policy: str = "default",
        predictor: PredictorOptions = PredictorOptions(),
        seed: int = 0,
        as_written: bool = False,
        out: str | Path | None = None,
        listener: RunListener = RunListener(),
    ) -> Onboardings:
        """Measure the most informative architectures, predict the whole space, write table, predictor and report.

        Args:
            devices, options, policy, as_written, listener: as for `measure`.
            space: name of the search space.
            budget: number of architectures to measure.
            until_percent: stop earlier, once the expected error over the space is at most so many percent.
            holdout: also measure this many random architectures that the predictor never sees, in two sessions.
            predictor: as for `predict`.
            seed: seed of all random choices.
            out: folder for latency_table.parquet and .csv, predictor/ and report.html; each of several targets has its
                own folder in it. Default: a folder in `latlab-out`.

        Returns:
            A sequence with a result for each target that did not fail; its `failures` says which did, and why.

        Raises:
            BadInputError: if the arguments make no sense, or a name is unknown.
            LatlabError: if all targets failed.
        """
        targets = self.targets(devices, options)
        if budget < 1:
            raise BadInputError(f"the budget must be at least 1, not {budget}")
        if until_percent is not None and not until_percent > 0:
            raise BadInputError(f"the error to reach must be a positive percentage, not {until_percent}")
        chosen_space = space_to_measure(space)
        fresh = predictor_for(predictor, chosen_space, seed=seed)
        predictor = replace(predictor, name=fresh.name)
        must = fresh.wanted()
        if budget < len(must):
            raise BadInputError(
                f"the predictor {fresh.name} needs {len(must)} architectures of its own choice, the budget is {budget}",
                f"Give it --budget {len(must)} or more.",
            )
        if budget + holdout > chosen_space.size:
            raise BadInputError(f"{space} has only {chosen_space.size} architectures")
        unseen = holdout_of(chosen_space, holdout, seed, must)
        plans = []
        for target in targets:
            allowed = source_filter_of(self.inventory, str(target), None, unseen)
            plans.append(
                OnboardingPlan(
                    target=target,
                    space=chosen_space,
                    policy=policy_named(policy, self.inventory),
                    predictor=predictor,
                    sources=tuple(sources_of(self.store, chosen_space, allowed, predictor.sources)),
                    blocks=block_latencies(self.store, str(target), chosen_space),
                    budget=budget,
                    until_percent=until_percent,
                    holdout=holdout,
                    seed=seed,
                    as_written=as_written,
                    options=campaign_options(target, as_written),
                    out=writable_folder(_onboarding_folder(out, target, space, seed, len(targets))),
                )
            )
        from latlab.harness.report.build import onboarding_report  # matplotlib is heavy

        results = []
        runs, failures = onboard(self.store, plans, self.run_jobs, listener)
        for run in runs:
            with whole_folder(run.plan.out, keep_others=True) as folder:
                result = save_onboarding(run, folder)
                onboarding_report(result, run, folder)
            results.append(result)
        return Onboardings(tuple(results), failures)

    def report(
        self,
        *,
        target: str | None = None,
        space: str | None = None,
        out: str | Path = "report.html",
        predictor: PredictorOptions = PredictorOptions(),
        seed: int = 0,
    ) -> Path:
        """Write the report on a target and a space, from what the store holds of them, and return its path.

        It shows all measurements. The predictor is fitted to those that are not hold-out.

        Args:
            target: as for `predict`; None for the only one in the store.
            space: name of the search space; None for the only one.
            out: file to write.
            predictor, seed: as for `predict`.

        Raises:
            BadInputError: if several targets or spaces could be meant, there are none, or the file cannot be written.
        """
        from latlab.harness.report.build import store_report  # matplotlib is heavy

        target = None if target is None else stored_target(self.store, target)
        table = self.store.table(target=target, space=space, raw=True, provisional=True)
        rows = with_distributions(self.store, table)
        if space is None:
            rows = rows[~rows["space"].map(is_block_space).astype(bool)]
        if len(_pairs(rows)) != 1:
            known = "\n".join(f"  --target {t} --space {s}" for t, s in self.store.labelled()) or "  nothing yet"
            raise BadInputError(f"say which of these the report is about, the store {self.store.path} has:\n{known}")
        path = Path(out)
        writable_folder(path.parent)
        target, space = _pairs(rows)[0]
        sources: tuple[str, ...] = ()
        fitted = None
        if space != USER_MODEL_SPACE:
            chosen_space = space_named(space)
            held_out = parse_archs(chosen_space, rows.loc[rows["role"] == Role.HOLDOUT, "arch"].unique())
            fitted, others = trained_predictor(
                self.store, self.inventory, target, chosen_space, rows, held_out, predictor, seed
            )
            sources = tuple(source.name for source in others)
        return store_report(self.store, rows, fitted, sources, path)

    def quality(self, target: str | None = None, *, space: str | None = None) -> list[Quality]:
        """Assess how far the labels of the store can be trusted, for each target and space with labels.

        Args:
            target: a full target, or a device for all its targets; None for all.
            space: name of a search space; None for all.

        Raises:
            BadInputError: if the store has no such label.
        """
        from latlab.harness.quality.assessment import assess  # scipy.stats is heavy

        labelled = self.store.labelled()
        pairs = [(t, s) for t, s in labelled if target in (None, t, t.split("/")[0]) and space in (None, s)]
        if not pairs:
            known = "\n".join(f"  {t} --space {s}" for t, s in labelled)
            asked = f" of {target or 'anything'}{f' in {space}' if space else ''}" if target or space else ""
            raise BadInputError(
                f"the store {self.store.path} has no labels{asked}",
                f"It has labels of:\n{known}" if known else "Measure some first (latlab measure).",
            )
        return [assess(self.store, *pair) for pair in pairs]


def _networks(
    space: str | None,
    count: int | None,
    archs: Sequence[str | Architecture] | None,
    blocks: bool,
    seed: int,
    as_written: bool,
) -> tuple[SearchSpace, list[Architecture]]:
    """Return the space to measure, and the architectures of it that are to be measured."""
    if space is None:
        raise BadInputError("say what to measure: a space, or a model of your own")
    if archs is not None if blocks else (count is None) == (archs is None):
        raise BadInputError("say which architectures: how many (count), or a list of them, not both")
    chosen: SearchSpace = blocks_of(space) if blocks else space_to_measure(space)
    if archs is not None:
        return chosen, parse_archs(chosen, archs)
    if isinstance(chosen, BlockSpace):
        return chosen, some_blocks(chosen, count, seed, as_written)
    return chosen, sample_space(chosen, count or 0, seed)


def _own_models(networks: Sequence[str], inputs: InputOptions, options: TargetOptions) -> list[OwnModel]:
    """Return the models of a comparison, each with those options that name something of it.

    Raises:
        BadInputError: as `locate`; or if an option names something of none of them.
    """
    found = [locate(one, inputs, options.runtime, options.batch_size, one_of_several=True) for one in networks]
    used = {word for own in found for word in own.options.words()}
    for word in inputs.words():
        if word not in used:
            raise BadInputError(f"{word} names an input or a side of none of {', '.join(networks)}")
    return found


def _only_device(targets: Sequence[Target]) -> Target:
    """Return the first target. Raises `BadInputError` if they are of several devices."""
    if any(other.device != targets[0].device for other in targets):
        raise BadInputError(f"this works on one device at a time, and there are {len(targets)} targets", "Name one.")
    return targets[0]


def _ready(artifact: Artifact) -> Callable[[str], Future[Artifact]]:
    future: Future[Artifact] = Future()
    future.set_result(artifact)
    return lambda _: future


def _pairs(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return list(dict.fromkeys(zip(rows["target"], rows["space"], strict=True)))


def _onboarding_folder(out: str | Path | None, target: Target, space: str, seed: int, targets: int) -> Path:
    name = str(target).replace("/", "-")
    if out is None:
        return Path("latlab-out") / name / (space if seed == 0 else f"{space}-seed{seed}")
    return Path(out) / name if targets > 1 else Path(out)
