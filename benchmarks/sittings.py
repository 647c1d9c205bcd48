"""Do the 90 % intervals of predictions hold in later measurement sessions, on this machine?

    python benchmarks/sittings.py WORK --learn     # once: onboard each target with 20 networks
    python benchmarks/sittings.py WORK --sit       # as often as wanted, at other times: measure held-out networks
    python benchmarks/sittings.py WORK --report    # the table

`--learn` onboards this machine on each pair of space and runtime, in a store of its own (`WORK/learnt.db`). `--sit`
measures held-out networks of each pair in a new session, in a second store, so that predictions do not learn from them.
The report compares what the predictor says before any held-out network with what each sitting found: the shift of the
whole sitting against the predictions, the scatter around that shift, and how many labels lie in the interval.
"""

from __future__ import annotations

import argparse
import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from common import RESULTS, save, show

from latlab.harness import Lab
from latlab.harness.active_learning.session_spread import ComparedSessions
from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.store.vocabulary import Status
from latlab.predictors import create
from latlab.predictors.common.metrics import mape_percent, spearman
from latlab.search_spaces import get

PAIRS = (("nasbench201", "onnxruntime"), ("fbnet", "tflite"), ("ofa-mobilenetv3", "torchscript"))


def held_out(space: str, count: int) -> list[str]:
    """Return random networks of a space, other ones than the candidates of an onboarding with probability near 1."""
    found = get(space)
    return [arch.text for arch in found.sample(count, random.Random("sittings"))]


def learn(lab: Lab, work: Path, budget: int) -> None:
    """Onboard this machine on each pair."""
    for space, runtime in PAIRS:
        out = work / f"{space}-{runtime}"
        lab.onboard("local", space=space, budget=budget, options=TargetOptions(runtime=runtime), out=out)


def sit(lab: Lab, count: int) -> None:
    """Measure the held-out networks of each pair in a new session."""
    for space, runtime in PAIRS:
        options = TargetOptions(runtime=runtime)
        lab.measure("local", space=space, archs=held_out(space, count), options=options, raw=False, new_session=True)


def report(learnt: Lab, sat: Lab) -> list[dict[str, object]]:
    """Return a row for each pair and sitting."""
    rows: list[dict[str, object]] = []
    for space, runtime in PAIRS:
        measured = sat.store.table(space=space)
        measured = measured[(measured["status"] == Status.OK) & measured["target"].str.contains(f"/{runtime}/")]
        known = set(learnt.store.table(space=space)["arch"])
        for session, labels in measured.groupby("session"):
            fresh = labels[~labels["arch"].isin(known)]
            target = str(fresh["target"].iloc[0])
            found = learnt.predictor(target, space=space).predict(fresh["arch"].tolist())
            truth = fresh["latency_ms"].to_numpy()
            error = np.log(truth / found.mean_ms)
            rows.append(
                {
                    "space": space,
                    "runtime": runtime,
                    "sitting": int(session),
                    "began": str(fresh["started_at"].min())[:19] if "started_at" in fresh else "",
                    "networks": len(fresh),
                    "spearman": spearman(found.mean_ms, truth),
                    "mape_percent": mape_percent(found.mean_ms, truth),
                    "shift_percent": 100 * float(np.median(error)),
                    "scatter_percent": 100 * float(np.std(error - np.median(error))),
                    "interval_percent": 100 * float(np.median(np.log(found.upper_ms / found.mean_ms))),
                    "covered_percent": 100 * float(np.mean((found.lower_ms <= truth) & (truth <= found.upper_ms))),
                }
            )
    return rows


def mixed(sat: Lab, draws: int) -> list[dict[str, object]]:
    """Return how well `roost` ranks from labels of two sessions: as they are, and brought to one level by anchors.

    Ten networks have their label from one sitting and ten others from another; the rest, in their mean over all
    sittings, are predicted. All pairs of sittings, several random choices of the networks.
    """
    rows = []
    for space, runtime in PAIRS:
        measured = sat.store.table(space=space)
        measured = measured[(measured["status"] == Status.OK) & measured["target"].str.contains(f"/{runtime}/")]
        target, found = str(measured["target"].iloc[0]), get(space)
        truth = measured.groupby("arch")["latency_ms"].apply(lambda one: float(np.exp(np.log(one).mean())))
        genes = {text: found.canonical_genes(found.genes([found.parse(text)])) for text in truth.index}
        scores: dict[str, list[float]] = {"one sitting": [], "two, as they are": [], "two, on one level": []}
        for first, second in combinations(sorted(measured["session"].unique()), 2):
            for seed in range(draws):
                order = np.random.default_rng(seed).permutation(truth.index)
                for name in scores:
                    others = first if name == "one sitting" else second
                    own = [(order[:10], first), (order[10:20], others)]
                    part = pd.concat(
                        [measured[(measured["session"] == at) & measured["arch"].isin(archs)] for archs, at in own]
                    )
                    if name.endswith("level"):
                        part = ComparedSessions(sat.store, target, part).on_one_level(part)
                    predictor = create("roost", found)
                    support = np.concatenate([genes[text] for text in part["arch"]])
                    predictor.adapt(support, part["latency_ms"], part["stderr_ms"])
                    rest = order[20:]
                    predicted = predictor.predict(np.concatenate([genes[text] for text in rest])).mean_ms
                    scores[name].append(spearman(predicted, truth[rest].to_numpy()))
        rows.append({"space": space, "runtime": runtime, **{name: float(np.mean(one)) for name, one in scores.items()}})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for the two stores")
    what = parser.add_mutually_exclusive_group(required=True)
    for name in ("learn", "sit", "report"):
        what.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--budget", type=int, default=20, help="networks to learn from")
    parser.add_argument("--count", type=int, default=30, help="held-out networks")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    learnt, sat = (Lab(store=arguments.work / f"{name}.db") for name in ("learnt", "sat"))
    if arguments.learn:
        learn(learnt, arguments.work, arguments.budget)
    elif arguments.sit:
        sit(sat, arguments.count)
    else:
        rows = report(learnt, sat)
        show("Predictions and later sittings", rows)
        together = mixed(sat, 10)
        show("Spearman, labels of two sittings", together)
        save(RESULTS / "sittings.json", {"sittings": rows, "labels of two sittings": together})


if __name__ == "__main__":
    main()
