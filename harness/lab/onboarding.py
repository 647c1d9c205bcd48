"""The closed loop: measure a few well-chosen networks of a device, and predict all the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from latlab.harness.active_learning.block_latencies import block_latencies
from latlab.harness.active_learning.holdout import holdout_of
from latlab.harness.active_learning.onboarding import onboard
from latlab.harness.active_learning.onboarding_plan import OnboardingPlan
from latlab.harness.active_learning.onboarding_result import Onboarding, Onboardings, save_onboarding
from latlab.harness.active_learning.other_spaces import other_spaces
from latlab.harness.active_learning.prediction import prior_sources, source_filter_of
from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_for, predictor_options
from latlab.harness.active_learning.sampling import SEQUENTIAL, sampler_named
from latlab.harness.active_learning.source_devices import ALL, SourceFilter
from latlab.harness.active_learning.stopping import Until, most_samples, parse_goals
from latlab.harness.architectures import space_to_measure
from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.errors import BadInputError
from latlab.harness.exporters.campaign_options import campaign_options
from latlab.harness.fleet.jobs import RunListener
from latlab.harness.inventory.inventory import policy_named
from latlab.harness.lab.base import LabBase
from latlab.harness.paths import whole_folder, writable_folder
from latlab.harness.targets import Devices, Target

__all__ = ["OnboardingDevices"]


class OnboardingDevices(LabBase):
    """The verbs that onboard devices."""

    def onboard(
        self, device: str | Target = "local", *, space: str, options: TargetOptions = TargetOptions(), **more: Any
    ) -> Onboarding:
        """Onboard one target: a full one, or the first of a device. Further arguments and errors: `onboard_fleet`."""
        options.single()
        return self.onboard_fleet([str(self.targets(device, options)[0])], space=space, **more)[0]

    def onboard_fleet(
        self,
        devices: Devices,
        *,
        space: str,
        budget: int | None = None,
        until: Until = None,
        near_ms: float | None = None,
        holdout: int = 0,
        options: TargetOptions = TargetOptions(),
        policy: str = "default",
        predictor: PredictorOptions | str = PredictorOptions(),
        seed: int = 0,
        as_written: bool = False,
        out: str | Path | None = None,
        acquisition: str = SEQUENTIAL,
        encoding_table: str | Path | None = None,
        listener: RunListener = RunListener(),
    ) -> Onboardings:
        """Measure the most informative architectures, predict the whole space, write table, predictor and report.

        Args:
            devices, options, policy, as_written, listener: as for `measure`.
            space: name of the search space.
            budget: the most architectures to measure; default: 20, or 100 with `until`.
            until: stop earlier, at the first goal that is reached: "spearman 0.97", "90% within 5%" (of the space, by
                the predictor's own estimate), "3 min", "20 samples", several of them, or `stopping.Goal` values.
            near_ms: latency around which accuracy is wanted: architectures are chosen for predictions near it.
            holdout: also measure this many random architectures that the predictor never sees, in two sessions.
            predictor: as for `predict`.
            seed: seed of all random choices.
            out: folder for latency_table.parquet and .csv, predictor/ and report.html; each of several targets has its
                own folder in it. Default: a folder in `latlab-out`.
            acquisition: how architectures are chosen: `sequential`, one after the other by what is known then, or all
                at once by a sampler (`predictors.samplers`), such as `random` or `kmeans:arch2vec`.
            encoding_table: a file with encodings, which such a sampler reads instead of computing them.

        Returns:
            A sequence with a result for each target that did not fail; its `failures` says which did, and why.

        Raises:
            BadInputError: if the arguments make no sense, or a name is unknown.
            LatlabError: if all targets failed.
        """
        targets = self.targets(devices, options)
        goals = parse_goals(until)
        budget = most_samples(budget, goals)
        if budget < 1:
            raise BadInputError(f"the budget must be at least 1, not {budget}")
        if near_ms is not None and not 0 < near_ms < math.inf:
            raise BadInputError(f"the latency to be accurate near must be a positive number of ms, not {near_ms}")
        chosen_space = space_to_measure(space)
        table = None if encoding_table is None else Path(encoding_table)
        if acquisition == SEQUENTIAL and table is not None:
            raise BadInputError("--encoding-table is read by a sampler", "Name one with --acquisition.")
        sampler = None if acquisition == SEQUENTIAL else sampler_named(acquisition, table)
        predictor = predictor_options(predictor)
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
            alone = predictor.sources != ALL or predictor.pretrained is not None
            beside = () if alone else self._beside(target, targets, allowed)
            plans.append(
                OnboardingPlan(
                    target=target,
                    space=chosen_space,
                    policy=policy_named(policy, self.inventory),
                    predictor=predictor,
                    sources=tuple(prior_sources(self.store, chosen_space, allowed, predictor)),
                    beside=beside,
                    blocks=block_latencies(self.store, str(target), chosen_space),
                    others=tuple(other_spaces(self.store, str(target), chosen_space, predictor.spaces_from)),
                    budget=budget,
                    goals=goals,
                    near_ms=near_ms,
                    holdout=holdout,
                    seed=seed,
                    as_written=as_written,
                    options=campaign_options(target, as_written),
                    out=writable_folder(_onboarding_folder(out, target, space, seed, len(targets))),
                    sampler=sampler,
                    encoding_table=table,
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

    def _beside(self, target: Target, targets: Sequence[Target], allowed: SourceFilter) -> tuple[str, ...]:
        """Return the targets of one onboarding that a target may learn from: no other name of it, and, if it is real,
        no simulated one.
        """
        return tuple(
            str(one)
            for one in targets
            if not allowed.is_own(str(one))
            and (allowed.simulated or not source_filter_of(self.inventory, str(one)).simulated)
        )


def _onboarding_folder(out: str | Path | None, target: Target, space: str, seed: int, targets: int) -> Path:
    name = str(target).replace("/", "-")
    if out is None:
        return Path("latlab-out") / name / (space if seed == 0 else f"{space}-seed{seed}")
    return Path(out) / name if targets > 1 else Path(out)
