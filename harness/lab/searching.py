"""Search: the most accurate network that keeps a limit, measured."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from latlab.harness.active_learning.prediction import stored_target
from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_for, predictor_options
from latlab.harness.architectures import space_named, space_to_measure
from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters import ExportRequest
from latlab.harness.exporters.campaign_options import campaign_options
from latlab.harness.fleet.failures import TargetFailure
from latlab.harness.fleet.jobs import RunListener
from latlab.harness.inventory.inventory import policy_named
from latlab.harness.lab.measuring import Measuring
from latlab.harness.lab.onboarding import OnboardingDevices
from latlab.harness.lab.predicting import Predicting
from latlab.harness.paths import whole_file, whole_folder, writable_folder
from latlab.harness.search.accuracy import SOURCES, AccuracySource
from latlab.harness.search.accuracy_models import accuracy_source
from latlab.harness.search.candidates import Listed, candidates_of
from latlab.harness.search.evidence import StoreEvidence
from latlab.harness.search.limits import Constraints, Limit, limits_of
from latlab.harness.search.looking import Follow
from latlab.harness.search.notes import SearchNotes
from latlab.harness.search.result import SearchResult
from latlab.harness.search.rounds import Search, SearchPlan
from latlab.harness.search.state import SearchFolder
from latlab.harness.statistics.ranking import Resolve
from latlab.harness.store.lock import locked
from latlab.harness.store.vocabulary import Selection
from latlab.harness.targets import Target
from latlab.search_spaces import SearchSpace

__all__ = ["Searching"]

MOST_ONBOARDING = 20
"""Most networks to measure before a search in a space in which a target has no labels; half the budget at most."""
LEAST_SURE = 0.51
"""Least confidence with which `--resolve` can ask on which side of a limit a network is."""
EXPORTED = ("onnx", "torchscript", "tflite")
"""Formats of the answer's model files."""
PAGE, RESULT = "search.html", "result.json"


class Searching(Measuring, Predicting, OnboardingDevices):
    """The verb that searches."""

    def search(
        self,
        targets: str | Target | Sequence[str | Target],
        *,
        space: str,
        max_latency_ms: float | Mapping[str, float],
        accuracy: str | Path | Callable[..., Any] | AccuracySource | None = None,
        accuracy_column: str | None = None,
        candidates: str | Path | None = None,
        max_macs: float | None = None,
        max_params: float | None = None,
        max_energy_mj: float | None = None,
        max_peak_memory_mb: float | None = None,
        confidence: float = 0.9,
        budget: int = 30,
        measure: bool = True,
        resolve: bool = False,
        top: int = 5,
        population: int = 100,
        generations: int = 500,
        options: TargetOptions = TargetOptions(),
        policy: str = "default",
        predictor: PredictorOptions | str = PredictorOptions(),
        seed: int = 0,
        as_written: bool = False,
        out: str | Path | None = None,
        export: str | Path | None = None,
        listener: RunListener = RunListener(),
        follow: Follow | None = None,
    ) -> SearchResult:
        """Search for the most accurate network that keeps latency limits; what is returned was measured.

        Candidates are scored by their accuracy and by the probability with which they keep the limits. The best of them
        are measured, the predictors learn from that, and so on, until the answer stands or the budget is spent. The
        same call continues a search that was interrupted; a larger budget extends it.

        Args:
            targets: full targets, or devices with one target or with `options`. One without labels in the space is
                onboarded first.
            space: name of the search space.
            max_latency_ms: the limit in ms on every target, or a limit for each, by the words in `targets`.
            accuracy: a table, the weights of OFA's accuracy predictor, an ONNX model, `module:function`, `macs` or
                `params` (`search.accuracy.SOURCES`); or a function from genes (n, genes) to n accuracies.
            accuracy_column: the table's column of accuracies; None for the only one.
            candidates: a file with the architectures to choose from; None for the whole space, or a table's networks.
            max_macs, max_params: most multiply-accumulates and parameters.
            max_energy_mj, max_peak_memory_mb: most energy of an inference, and most memory, on every target; for
                targets whose measurements tell them.
            confidence: probability with which all limits but those of MACs and parameters are kept together. Errors
                on several targets, and of several metrics, are taken as independent.
            budget: most networks to measure.
            measure: False to predict only.
            resolve: add passes to the best measured networks until it is certain which of them keep the limits.
            top: number of networks in the result.
            population, generations: size and number of the populations of the evolution, in spaces too large to list.
            options: runtime, accelerator, precision, threads and batch size of devices. Several values are several
                targets, on all of which the limits must hold.
            policy, seed, as_written, listener: as for `measure`.
            predictor: as for `predict`.
            out: folder for the page, the result and the state of the search. Default: a folder in `latlab-out`.
            export: folder for the model files of the answer.
            follow: called while candidates are looked at.

        Raises:
            BadInputError: if the arguments make no sense, or no candidate can keep the limits.
            LatlabError: if all targets failed, or one of which nothing is known. If one of several fails otherwise, the
                search ends with what is known; the result says which failed.
        """
        chosen = space_to_measure(space) if measure or export is not None else space_named(space)
        words = [targets] if isinstance(targets, str | Target) else list(targets)
        if not words:
            raise BadInputError("say for which target to search", "Name one with --target.")
        if accuracy is None:
            raise BadInputError("say where accuracies come from: --accuracy SOURCE", SOURCES)
        if budget < 1:
            raise BadInputError(f"the budget must be at least 1, not {budget}", "To measure nothing, say --no-measure.")
        if top < 1:
            raise BadInputError(f"top must be at least 1, not {top}")
        if resolve and not measure:
            raise BadInputError("--resolve measures, and --no-measure forbids it", "Leave one of them out.")
        named = {str(word): self._search_targets(str(word), options) for word in words}
        full = [target for targets in named.values() for target in targets]
        if len(set(full)) < len(full) or len(named) < len(words):
            raise BadInputError(f"a target is named twice: {', '.join(map(str, words))}", "Name each once.")
        metrics = {"energy_mj": max_energy_mj, "peak_memory_mb": max_peak_memory_mb}
        others = [
            Limit(target, most, metric) for metric, most in metrics.items() if most is not None for target in full
        ]
        constraints = Constraints((*limits_of(named, max_latency_ms), *others), confidence, max_macs, max_params)
        source = accuracy_source(accuracy, chosen, accuracy_column)
        where, scope = candidates_of(chosen, source, candidates, population, generations)
        predictor = predictor_options(predictor)
        listed = where.genes.tobytes() if isinstance(where, Listed) else scope.encode()
        path = writable_folder(_search_folder(out, full, chosen, seed))
        if export is not None:
            writable_folder(export)
        if measure:
            self._check_budget(budget, predictor, chosen, seed)
        with locked(path.resolve() / ".search", "folder of a search"):
            folder = SearchFolder(
                path,
                [chosen.name, constraints, source.identity, listed, seed, policy, predictor, as_written, measure],
                chosen,
            )
            has_device = all(target.split("/")[0] in self.inventory.names for target in full)
            remarks = []
            if measure and not has_device:
                remarks.append("the inventory has no device for the targets, so nothing was measured")
            measure = measure and has_device
            if folder.continues and listener.announce:
                listener.announce("continuing the search that was begun here")
            shared: dict[str, Any] = {"policy": policy, "seed": seed, "as_written": as_written, "listener": listener}

            def measured(archs: Sequence[str], again: bool) -> Any:
                return self.measure(full, space=chosen.name, archs=archs, new_session=again, raw=False, **shared)

            def resolved(target: str, max_ms: float, archs: Sequence[str]) -> Any:
                question = Resolve(under_ms=max_ms, confidence=max(confidence, LEAST_SURE))
                return self.measure(target, space=chosen.name, archs=archs, resolve=question, raw=False, **shared)

            evidence = StoreEvidence(
                self.store,
                constraints.limits,
                chosen.name,
                as_written,
                lambda target, metric: self.predictor(
                    target, space=chosen.name, predictor=predictor, seed=seed, metric=metric
                ),
                measured,
                resolved,
            )
            if measure:
                self._onboard_unknown(folder, evidence, full, chosen, budget, predictor, shared)
            else:
                remarks += self._unmeasured_remarks(full, chosen, predictor, seed)
            most = budget if measure else 0
            plan = SearchPlan(
                chosen, constraints, source, where, scope, most, top, seed, as_written, resolve and measure
            )
            notes = self._notes(plan, full[0], policy, seed) if measure else None
            result = Search(plan, evidence, folder, follow, listener.announce, notes.add if notes else None).run()
            if notes:
                notes.end(str(result.found))
            if measure:
                remarks += [
                    f"no network was measured in two sessions on {target}: its labels are taken to differ by "
                    f"{100 * spread:.2g} % from one session to the next"
                    for target, spread in evidence.unknown_spreads().items()
                ]
            if result.failures:
                remarks.append(_still_possible(result.failures, full))
            if len(constraints.limits) > 1:
                remarks.append("errors under several limits are taken as independent: the probability is their product")
            rows = self.store.table(target=full, space=chosen.name, only=("target", "simulated"))
            result = replace(result, remarks=tuple(remarks), simulated=bool(rows["simulated"].any()))
            return self._written(result, folder.path, full, chosen, export, seed, as_written)

    def _notes(self, plan: SearchPlan, target: str, policy: str, seed: int) -> SearchNotes:
        """Return the search's notes in the campaign that measures its networks on the first target."""
        first = Target.parse(target)
        campaign = self.store.campaign(
            first,
            plan.space.name,
            policy_named(policy, self.inventory),
            seed,
            Selection.LISTED,
            campaign_options(first, plan.as_written),
        )
        return SearchNotes(self.store, campaign, plan.constraints, plan.accuracy.name, plan.budget)

    def _search_targets(self, word: str, options: TargetOptions) -> list[str]:
        """Return the full targets that a word means.

        Raises:
            BadInputError: there is none; or there are several, and the options do not say which.
        """
        if options.are_given:
            return [str(one) for one in self.targets(word, options)]
        stored = stored_target(self.store, word) if self.store.exists() else word
        if "/" in stored:
            target = Target.parse(stored)
            known = self.store.exists() and any(one == stored for one, _ in self.store.labelled())
            if not known:
                self.inventory.device(target.device)
            return [stored]
        found = self.targets(word)
        if len(found) != 1:
            raise BadInputError(
                f"{word} has several targets: {', '.join(map(str, found))}",
                "Name one, as it is written here, or choose with --runtime, --threads and so on.",
            )
        return [str(found[0])]

    @staticmethod
    def _check_budget(budget: int, predictor: PredictorOptions, space: SearchSpace, seed: int) -> None:
        """Raise `BadInputError` if the predictor alone needs more networks than may be measured."""
        wanted = len(predictor_for(predictor, space, seed=seed).wanted())
        if wanted > budget:
            raise BadInputError(
                f"the predictor {predictor.name} needs {wanted} networks of its own choice, the budget is {budget}",
                f"Give it --budget {2 * wanted} or more, or use another predictor.",
            )

    def _unmeasured_remarks(
        self, targets: Sequence[str], space: SearchSpace, predictor: PredictorOptions, seed: int
    ) -> list[str]:
        """Return what must be said of targets whose predictors know no label in the space.

        Raises:
            BadInputError: such a target has no label in any other space either.
        """
        remarks = []
        for target in targets:
            card = self.predictor(target, space=space.name, predictor=predictor, seed=seed).card
            if not card.labels and not card.other_spaces:
                raise BadInputError(
                    f"{target} has no labels in {space.name}: there is nothing to predict from",
                    "Leave out --no-measure, and it is measured first; or import labels of it.",
                )
            if not card.labels:
                spaces = ", ".join(card.other_spaces)
                remarks.append(f"{target} has no labels in {space.name}: it is predicted from those of {spaces}")
        return remarks

    def _onboard_unknown(
        self,
        folder: SearchFolder,
        evidence: StoreEvidence,
        targets: Sequence[str],
        space: SearchSpace,
        budget: int,
        predictor: PredictorOptions,
        shared: Mapping[str, Any],
    ) -> None:
        """Onboard the targets that have no labels in the space, which takes a part of the budget."""
        progress = folder.progress
        if progress.onboarding is None:
            labels = evidence.labels()
            progress.onboarding = [one for one, known in zip(targets, labels[: len(targets)], strict=True) if not known]
            folder.save()
        if not progress.onboarding or progress.onboarded:
            return
        wanted = len(predictor_for(predictor, space, seed=shared["seed"]).wanted())
        count = max(wanted, min(MOST_ONBOARDING, (budget + 1) // 2))
        if shared["listener"].announce:
            shared["listener"].announce(
                f"{', '.join(progress.onboarding)}: no labels in {space.name} yet, {count} networks are measured first"
            )
        where, start = folder.path / "onboarding", time.monotonic()
        try:
            failures = self.onboard_fleet(
                progress.onboarding, space=space.name, budget=count, predictor=predictor, out=where, **shared
            ).failures
        except LatlabError as error:
            if len(progress.onboarding) == len(targets):
                raise
            all_failed = [TargetFailure(one, error.message, error.hint) for one in progress.onboarding]
            kind = BadInputError if isinstance(error, BadInputError) else LatlabError
            raise kind(error.message, _still_possible(all_failed, targets)) from error
        if failures:
            told = "\n".join(f"{one.target}: {one.message}" for one in failures)
            raise LatlabError(told, _still_possible(failures, targets))
        progress.onboarded = count
        progress.spent += count
        progress.measuring_s += time.monotonic() - start
        folder.save()

    def _written(
        self,
        result: SearchResult,
        folder: Path,
        targets: Sequence[str],
        space: SearchSpace,
        export: str | Path | None,
        seed: int,
        as_written: bool,
    ) -> SearchResult:
        """Write the page, the result and the answer's model files, and return the result with their paths."""
        from latlab.harness.report.search.page import write_page  # matplotlib is heavy

        if export is not None and result.winner is not None:
            request = (space.name, result.winner.arch, Target.parse(targets[0]), seed, as_written)
            exported, remarks = self._export_winner(Path(export), *request)
            result = replace(result, exported=exported, remarks=(*result.remarks, *remarks))
        result = replace(result, report=(folder / PAGE).absolute())
        write_page(result, folder / PAGE)
        with whole_file(folder / RESULT) as part:
            part.write_text(json.dumps(result.full_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return result

    def _export_winner(
        self, folder: Path, space: str, arch: str, target: Target, seed: int, as_written: bool
    ) -> tuple[tuple[Path, ...], tuple[str, ...]]:
        """Write a network's files in the formats that most runtimes take; return their paths, and what failed."""
        paths, remarks = [], []
        with whole_folder(folder, keep_others=True) as part:
            for format in EXPORTED:
                try:
                    request = ExportRequest(space, arch, format, target.batch_size, target.precision, seed, as_written)
                    artifact = self._exported(request)
                except (LatlabError, ValueError) as error:
                    remarks.append(f"no {format} file: {error}")
                    continue
                name = f"winner{artifact.suffix}"
                shutil.copyfile(artifact.path, part / name)
                paths.append((folder / name).absolute())
        return tuple(paths), tuple(remarks)


def _still_possible(failures: Sequence[TargetFailure], targets: Sequence[str]) -> str:
    """Return what can be done after some of several targets have failed, and their own advice."""
    failed = list(dict.fromkeys(one.target for one in failures))
    others = [target for target in targets if target not in failed]
    advice = dict.fromkeys(one.hint for one in failures if one.hint)
    again = f"The same command goes on once {' and '.join(failed)} can be measured"
    if others:
        again += f"; what was measured on {' and '.join(others)} is kept, and a search without the failed ones uses it"
    return " ".join([*advice, f"{again}."])


def _search_folder(out: str | Path | None, targets: Sequence[str], space: SearchSpace, seed: int) -> Path:
    if out is not None:
        return Path(out)
    name = targets[0].replace("/", "-") + (f"-and-{len(targets) - 1}-more" if len(targets) > 1 else "")
    return Path("latlab-out") / name / (f"search-{space.name}" if seed == 0 else f"search-{space.name}-seed{seed}")
