"""The collection of a report's data from the store and the active-learning loop."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from latlab.harness.active_learning.latency_table import (
    latency_table,
    measured_latencies,
    whole_space,
    with_measured,
)
from latlab.harness.active_learning.loop import ClosedLoop, refitted
from latlab.harness.active_learning.onboarding_plan import Holdout, OnboardingRun
from latlab.harness.active_learning.onboarding_result import NOISY_PERCENT, Onboarding
from latlab.harness.active_learning.remarks import label_remarks
from latlab.harness.architectures import space_named
from latlab.harness.report import Headline, ReportData, write_report
from latlab.harness.report.fastest import fastest_networks
from latlab.harness.store.store import Store
from latlab.harness.store.verdict_counts import in_words as verdicts_in_words
from latlab.harness.store.verdict_counts import verdict_counts
from latlab.harness.store.vocabulary import USER_MODEL_SPACE, Role, Selection, Status
from latlab.harness.text import in_words, other_spaces_in_words
from latlab.predictors import Prediction, Predictor
from latlab.search_spaces import SearchSpace

__all__ = ["measurements_frame", "onboarding_report", "store_report"]

SPACE_SAMPLE = 1500
"""The number of the space's architectures that the report draws, enough to show its shape."""


def onboarding_report(result: Onboarding, run: OnboardingRun, folder: Path) -> Path:
    """Write the report of an onboarding into a folder, and return its path.

    Args:
        result: whose latency table and predictor lie in the folder already.
        run: the onboarding.
        folder: that is to become the plan's folder.
    """
    plan = run.plan
    fastest, fastest_of = fastest_networks(result.table, plan.space, run.loop.view)
    table = result.latency_table.name
    data = ReportData(
        target=result.target,
        space=result.space,
        facts=_facts(run.facts, run.rows, plan.policy.name)
        | {
            "Predictor": result.predictor,
            "Prior": in_words(result.sources),
            **_elsewhere(result.other_spaces),
            "Seed": str(plan.seed),
            "Budget": str(plan.budget),
        },
        headline=Headline(
            failed=result.failed,
            holdout_spearman=result.holdout_spearman,
            holdout_retest_spearman=result.holdout_retest_spearman,
            holdout_mape_percent=result.holdout_mape_percent,
            holdout_within_10_percent=result.holdout_within_10_percent,
            coverage_90=None
            if result.holdout_coverage_90_percent is None
            else result.holdout_coverage_90_percent / 100,
            wall_s=result.wall_s,
            timing_share=result.timing_share,
            simulated=result.simulated,
        ),
        measurements=measurements_frame(run.rows, plan.space),
        predictions=_compared(run.loop, run.holdout, run.prediction),
        learning_curve=run.learning_curve,
        space_sample=_space_sample(run.loop, plan.space),
        fastest=fastest,
        fastest_of=fastest_of,
        files=[
            ("All predictions are in", Path(table).with_suffix(".csv").name),
            ("and in", table),
            ("the predictor in", f"{result.predictor_folder.name}/"),
        ],
        notes=_notes(result),
    )
    return write_report(data, folder / result.report.name)


def _elsewhere(labels: Mapping[str, int]) -> dict[str, str]:
    return {"Other spaces": other_spaces_in_words(labels)} if labels else {}


def store_report(
    store: Store, rows: pd.DataFrame, predictor: Predictor | None, sources: Sequence[str], path: Path
) -> Path:
    """Write the report of stored measurements, and return its path.

    If at least three networks of a space were measured, the predictor is fitted to all but the hold-out.

    Args:
        store: the store.
        rows: its measurements of one target and space, with raw passes.
        predictor: pre-trained on `sources`. None for a user's own model, which belongs to no space.
        sources: the source devices' names.
        path: the file to write.
    """
    space = None if rows["space"].iloc[0] == USER_MODEL_SPACE else space_named(str(rows["space"].iloc[0]))
    prints = rows["fingerprint_id"].dropna()
    facts = store.facts(prints.iloc[-1]) if len(prints) else {}
    loop = None if space is None or predictor is None else refitted(space, rows, predictor)
    enough = loop is not None and loop.measured >= 3
    good = rows[rows["status"] == Status.OK]
    theirs = int((good["selection"] == Selection.IMPORTED).sum())
    noise = (100 * pd.to_numeric(good["stderr_ms"]) / good["latency_ms"]).median()
    fastest, fastest_of = pd.DataFrame(), ""
    if loop and enough:
        fastest, fastest_of = fastest_networks(_latency_table(loop, rows), loop.space, loop.view)
    data = ReportData(
        target=str(rows["target"].iloc[0]),
        space=str(rows["space"].iloc[0]),
        facts=_facts(facts, rows, ", ".join(sorted(set(rows["policy"]))))
        | (
            {"Predictor": predictor.name, "Prior": in_words(sources), **_elsewhere(predictor.other_spaces)}
            if predictor and enough
            else {}
        ),
        headline=Headline(failed=int((rows["status"] != Status.OK).sum()), simulated=bool(rows["simulated"].any())),
        measurements=measurements_frame(rows, space),
        predictions=_compared(loop, None, None) if loop and enough else pd.DataFrame(),
        learning_curve=loop.learning_curve([], []) if loop and enough else pd.DataFrame(),
        space_sample=_space_sample(loop, loop.space) if loop and enough else pd.DataFrame(),
        fastest=fastest,
        fastest_of=fastest_of,
        notes=[
            *label_remarks(good),
            *(loop.predictor.remarks() if loop and enough else ()),
            *([_noisy(noise)] if noise > NOISY_PERCENT else []),
            *_imported(theirs, good),
        ],
        imported=theirs > 0 and theirs == len(good),
    )
    return write_report(data, path)


def measurements_frame(rows: pd.DataFrame, space: SearchSpace | None) -> pd.DataFrame:
    """Return store rows as the report needs them: with MACs and parameters of each network, and a common `order`."""
    frame = rows.copy()
    frame["order"] = range(1, len(frame) + 1)
    if space is not None:
        costs = [space.layers(space.parse(arch), live=True) for arch in frame["arch"]]
        frame["macs"] = [sum(layer.macs for layer in layers) for layers in costs]
        frame["params"] = [sum(layer.params for layer in layers) for layers in costs]
    return frame


def _facts(facts: dict[str, Any], rows: pd.DataFrame, policy: str) -> dict[str, str]:
    cpus = facts.get("cpus") or {}
    runtime = str(rows["target"].iloc[0]).split("/")[1]
    version = ((facts.get("runtimes") or {}).get(runtime) or {}).get("version", "unknown")
    shown = {
        "CPU": f"{cpus.get('model') or 'unknown'}, {cpus.get('count', '?')} cores",
        "System": facts.get("platform") or "unknown",
        "Runtime": f"{runtime} {version}",
        "Timed on": f"CPU {', '.join(map(str, facts['affinity']))}" if facts.get("affinity") else "any CPU",
        "Frequency governor": cpus.get("governor") or "not readable",
        "Timing policy": policy,
        "Labels": verdicts_in_words(verdict_counts(rows)) or "not judged",
        "First measurement": str(rows["started_at"].min())[:19].replace("T", " ") + " UTC",
        "Last measurement": str(rows["finished_at"].max())[:19].replace("T", " ") + " UTC",
    }
    return {name: str(value) for name, value in shown.items()}


def _compared(loop: ClosedLoop, holdout: Holdout | None, prediction: Prediction | None) -> pd.DataFrame:
    """Return the training rows with leave-one-out predictions, and the hold-out with its predictions."""
    frames = []
    if loop.measured >= 3:
        archs = [arch.text for arch in loop.support()]
        frames.append(_beside(archs, loop.support_ms(), loop.predictor.leave_one_out(), Role.TRAIN))
    if holdout is not None and prediction is not None and len(holdout.archs):
        frames.append(_beside([a.text for a in holdout.archs], holdout.latency_ms, prediction, Role.HOLDOUT))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _beside(archs: Sequence[str], latency_ms: np.ndarray, prediction: Prediction, role: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "arch": list(archs),
            "latency_ms": latency_ms,
            "predicted_ms": prediction.mean_ms,
            "std_ms": prediction.std_ms,
            "lower_ms": prediction.lower_ms,
            "upper_ms": prediction.upper_ms,
            "role": role,
        }
    )


def _latency_table(loop: ClosedLoop, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the latency table of a loop's space, with the labels of all rows."""
    measured = measured_latencies(rows)
    archs = with_measured(loop.space, whole_space(loop.space), measured)
    return latency_table(archs, loop.predict(archs), measured)


def _space_sample(loop: ClosedLoop, space: SearchSpace) -> pd.DataFrame:
    drawn = space.sample(min(SPACE_SAMPLE, space.size), random.Random("report"))
    measured = loop.support()
    archs = list(dict.fromkeys([*measured, *drawn]))
    prediction = loop.predict(archs)
    return pd.DataFrame(
        {
            "arch": [arch.text for arch in archs],
            "macs": [sum(layer.macs for layer in space.layers(arch, live=True)) for arch in archs],
            "predicted_ms": prediction.mean_ms,
            "std_ms": prediction.std_ms,
            "measured": [arch in set(measured) for arch in archs],
        }
    )


def _noisy(percent: float) -> str:
    return (
        f"The measurements are noisy: their median standard error is {percent:.1f} %. "
        "Something else may be using the device; latlab doctor looks for it."
    )


def _imported(labels: int, good: pd.DataFrame) -> list[str]:
    if not labels:
        return []
    which = "All labels were" if labels == len(good) else f"{labels:,} of the {len(good):,} labels were"
    return [f"{which} imported: how they were timed, when and in which order is not known; the dates are the import's."]


def _notes(result: Onboarding) -> list[str]:
    notes = [one.sentence for one in result.disturbances]
    if result.imported:
        notes.append(f"The predictor has also learnt from {result.imported:,} imported labels of this target.")
    if result.noisy:
        notes.append(_noisy(result.label_noise_percent))
    if result.failed:
        notes.append(f"{result.failed} networks failed; the reasons are in the table of failures.")
    if result.measured < 10:
        notes.append("Fewer than ten networks were measured: intervals are wide and may still be wrong.")
    retest = result.holdout_retest_spearman
    if retest is not None and retest < 0.95:
        notes.append(
            f"Two sessions over the same networks agree only to a rank correlation of {retest:.3f}: "
            "the device is noisy, and no predictor can rank better than that."
        )
    return notes
