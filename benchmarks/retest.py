"""Figure 2: every timing policy against itself: how well two sessions agree, and what they cost.

    python benchmarks/retest.py WORK

NAS-Bench-201 networks are measured under each preset in two sessions through `Lab.measure`, on a machine without other
load and with two kinds of noisy neighbours (`neighbour.py`): one that is busy in bursts on the CPU next to the timed
one, and one on every CPU, as on a shared machine. All presets have their first session, in a random order, then all
their second, so that slow changes of the machine hit all presets alike. A session is one uninterrupted run, as in use:
to cut it in pieces would harm presets without anchors more than others. The graphs are distinct, so that no label
stands for two networks.

Presets that take long for a network get fewer networks (`--share`), and their rank correlation is that of fewer. So two
more figures are given: the rank correlation of `help` on the same networks, and an estimate of the preset's own on all
of them, for which ratios of its two sessions' labels are drawn at random and multiplied to `help`'s labels of all
networks. The deviation does not depend on the number of networks: it is the standard deviation of the logarithm of that
ratio, over sqrt 2.

Everything is kept in the folder WORK, a store for each preset and neighbour: the same command continues where it was
stopped.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import RESULTS, save, show
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from latlab.harness import Lab
from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.exporters import ExportRequest
from latlab.harness.exporters.service import Exports
from latlab.harness.statistics.reliability import retest
from latlab.harness.store.store import Store
from latlab.harness.timing_policy import PRESETS
from latlab.predictors.common.metrics import kendall, spearman
from latlab.search_spaces import get

SPACE, RUNTIME = "nasbench201", "onnxruntime"
SESSIONS = (1, 2)
NEIGHBOURS: dict[str, tuple[str, float, float]] = {
    "none": ("", 0.0, 0.0),
    "beside": ("beside", 0.5, 1.0),
    "everywhere": ("everywhere", 0.3, 1.2),
}
"""CPUs on which a process is busy, the mean length of its bursts and of the pauses between them, in seconds.

With `everywhere`, `help` repeats itself about as well as it did on a machine shared with other people (.955)."""
SHARES = {"tflite": 0.05, "nvbench": 1 / 15, "thorough": 1 / 3}
"""Shares of the networks that are measured under presets for which all of them would take too long."""
REFERENCE = "help"
RESAMPLES = 1000
COLOURS = {"none": "#1b6ca8", "beside": "#2e8b57", "everywhere": "#d1495b"}
LABELS = {"none": "quiet", "beside": "neighbour beside the timed CPU", "everywhere": "neighbours on every CPU"}


def networks(count: int, seed: int) -> list[str]:
    """Return random architectures whose graphs all differ."""
    space = get(SPACE)
    found: dict[str, str] = {}
    for arch in space.sample(2 * count + 10, seed):
        found.setdefault(space.canonical(arch).text, arch.text)
    return list(found.values())[:count]


@contextmanager
def neighbour(name: str, seed: int) -> Iterator[None]:
    where, busy_s, idle_s = NEIGHBOURS[name]
    cpus = sorted(os.sched_getaffinity(0))  # the last one is timed
    chosen = {"": [], "beside": cpus[-2:-1], "everywhere": cpus}[where]
    program = [sys.executable, str(Path(__file__).with_name("neighbour.py"))]
    processes = [subprocess.Popen([*program, *map(str, (cpu, seed + cpu, busy_s, idle_s))]) for cpu in chosen]
    try:
        if processes:
            time.sleep(1)  # until they have begun
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def lab(work: Path, preset: str, neighbours: str) -> Lab:
    return Lab(work / f"{preset}-{PRESETS[preset].hash()[:8]}-{neighbours}.db", cache=work / "artifacts")


def measure(work: Path, preset: str, neighbours: str, archs: Sequence[str], session: int) -> None:
    """Measure the networks that the session lacks, unless a later session has begun."""
    opened = lab(work, preset, neighbours)
    known = opened.store.campaigns()
    latest = int(known["session"].max()) if len(known) else 0
    if latest <= session:
        opened.measure(
            archs=archs,
            space=SPACE,
            options=TargetOptions(runtime=RUNTIME, threads=1),
            policy=preset,
            new_session=latest < session,
            raw=False,
        )
    opened.store.close()


def run(arguments: argparse.Namespace, archs: Sequence[str]) -> None:
    for number, name in enumerate(arguments.neighbour):
        with neighbour(name, arguments.seed + 1000 * number):
            for session in SESSIONS:
                presets = list(arguments.policies)
                random.Random(f"{arguments.seed}/{name}/{session}").shuffle(presets)
                for preset in presets:
                    started = time.perf_counter()
                    measure(arguments.work, preset, name, archs[: size(arguments, preset)], session)
                    print(f"{name}, session {session}, {preset}: {time.perf_counter() - started:.1f} s", flush=True)


def size(arguments: argparse.Namespace, preset: str) -> int:
    count, share = int(arguments.networks), float(arguments.shares.get(preset, 1.0))
    return min(count, max(3, round(count * share)))


def session_labels(store: Store) -> list[pd.DataFrame]:
    """Return the finished rows of each session, by architecture."""
    table = store.table(space=SPACE)
    table = table[table["status"] == "ok"]
    return [table[table["session"] == session].set_index("arch") for session in SESSIONS]


def device_seconds(store: Store, session: int) -> float:
    """Return the seconds of warm-up and samples in a session, anchors and rejected passes included."""
    campaign = store.campaigns()["campaign"].iloc[0]
    timed = [*store.session_passes(campaign, session), *store.anchors(campaign, session)]
    # A sample of several calls is stored as their mean.
    return sum(sum(one.warmup_ns) + sum(one.samples_ns) * float(one.telemetry.get("calls", 1)) for one in timed) / 1e9


def agreement(a: pd.Series, b: pd.Series, seed: int) -> dict[str, Any]:
    """Return the rank correlations of two sessions' labels, with 95 % bootstrap intervals, and their deviation."""
    x, y = a.to_numpy(dtype=np.float64), b.to_numpy(dtype=np.float64)
    found = retest(x, y, seed=seed)
    rng = np.random.default_rng(seed)
    resampled = [kendall(x[draw], y[draw]) for draw in rng.integers(len(x), size=(RESAMPLES, len(x)))]
    low, high = np.nanquantile(resampled, (0.025, 0.975))
    return {
        "spearman": found.spearman,
        "spearman_low": found.low,
        "spearman_high": found.high,
        "kendall": found.kendall,
        "kendall_low": float(low),
        "kendall_high": float(high),
        "deviation_percent": 100 * found.scatter / math.sqrt(2),
        "shift_percent": float(100 * np.expm1(np.median(np.log(y / x)))),
    }


def among(latencies: pd.Series, ratios: pd.Series) -> float:
    """Return the rank correlation of two sessions over all networks, if their labels differed by such ratios."""
    truth = np.log(latencies.to_numpy(dtype=np.float64))
    draws = np.random.default_rng(0).choice(np.log(ratios.to_numpy(dtype=np.float64)), (RESAMPLES, len(truth)))
    return float(np.mean([spearman(truth, truth + draw) for draw in draws]))


def evaluate(arguments: argparse.Namespace, preset: str, neighbours: str) -> dict[str, Any]:
    store = lab(arguments.work, preset, neighbours).store
    first, second = session_labels(store)
    both = first.index.intersection(second.index)
    rows = pd.concat([first.loc[both], second.loc[both]])
    beside = of_all = None
    if REFERENCE in arguments.policies:
        reference = lab(arguments.work, REFERENCE, neighbours).store
        helps = session_labels(reference)
        reference.close()
        labels = pd.concat([one["latency_ms"] for one in helps], axis=1, join="inner")
        common = both.intersection(labels.index)
        beside = spearman(*labels.loc[common].to_numpy().T)
        if len(both) < len(labels):
            of_all = among(labels.mean(axis=1), second.loc[both, "latency_ms"] / first.loc[both, "latency_ms"])
    verdicts = rows["verdict"].value_counts(normalize=True)
    half_widths = (rows["high_ms"] - rows["low_ms"]) / 2 / rows["latency_ms"]
    seconds = [device_seconds(store, session) for session in SESSIONS]
    found = {
        "preset": preset,
        "neighbour": neighbours,
        "networks": len(both),
        "failed": len(first) + len(second) - len(rows),
        "policy_hash": rows["policy_hash"].iloc[0],
        "device_s": seconds,
        "device_s_per_network": sum(seconds) / len(rows),
        **agreement(first.loc[both, "latency_ms"], second.loc[both, "latency_ms"], arguments.seed),
        "raw_spearman": retest(first.loc[both, "raw_ms"], second.loc[both, "raw_ms"]).spearman,
        "help_on_the_same": beside,
        "spearman_of_all": of_all,
        "half_width_percent": float(100 * half_widths.astype(float).median()),
        "verdicts": {kind or "none": float(share) for kind, share in verdicts.items()},
        "median_ms": float(rows["latency_ms"].median()),
    }
    store.close()
    return found


def with_ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows, with their device-seconds per network over those of `help` under the same neighbour."""
    reference = {row["neighbour"]: row["device_s_per_network"] for row in rows if row["preset"] == REFERENCE}
    return [
        {**row, "device_s_ratio": row["device_s_per_network"] / reference.get(row["neighbour"], float("nan"))}
        for row in rows
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    def interval(row: Mapping[str, Any], name: str) -> str:
        return f"{row[name]:.4f} ({row[f'{name}_low']:.4f}-{row[f'{name}_high']:.4f})"

    return [
        {
            "neighbour": row["neighbour"],
            "preset": row["preset"],
            "networks": row["networks"],
            "ms a network": 1e3 * row["device_s_per_network"],
            "/ help": round(row["device_s_ratio"], 2),
            "Spearman": interval(row, "spearman"),
            "help's": None if row["help_on_the_same"] is None else round(row["help_on_the_same"], 4),
            "of all": None if row["spearman_of_all"] is None else round(row["spearman_of_all"], 4),
            "raw": round(row["raw_spearman"], 4),
            "Kendall": interval(row, "kendall"),
            "deviation %": round(row["deviation_percent"], 2),
            "half-width %": round(row["half_width_percent"], 2),
            "flagged": ", ".join(f"{kind} {share:.1%}" for kind, share in row["verdicts"].items() if kind != "none"),
        }
        for row in rows
    ]


def draw(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Draw the cost of each preset against how far its sessions are from agreeing."""
    neighbours = [name for name in NEIGHBOURS if any(row["neighbour"] == name for row in rows)]
    figure, axis = plt.subplots(figsize=(8.5, 5.4), layout="constrained")
    for name in neighbours:
        for row in (row for row in rows if row["neighbour"] == name):
            x, of_all = 1e3 * row["device_s_per_network"], row["spearman_of_all"]
            y = 1 - (row["spearman"] if of_all is None else of_all)
            ends = (row["spearman_high"] - row["spearman"], row["spearman"] - row["spearman_low"])
            error = [[max(0.0, end)] for end in ends] if of_all is None else None
            face = COLOURS[name] if of_all is None else "white"
            axis.errorbar(x, y, error, color=COLOURS[name], marker="o", markerfacecolor=face, capsize=2, linewidth=1)
            axis.annotate(
                row["preset"], (x, y), xytext=(6, 4), textcoords="offset points", color=COLOURS[name], fontsize=9
            )
        axis.plot([], [], color=COLOURS[name], marker="o", linestyle="none", label=LABELS[name])
    axis.plot(
        [], [], color="#555555", marker="o", markerfacecolor="white", linestyle="none", label="from fewer networks"
    )
    axis.set(
        xscale="log", yscale="log", xlabel="device time for a network and session (ms)",
        ylabel="1 - Spearman's rank correlation of two sessions",
    )  # fmt: skip
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_title("Lower left is better: agreement bought with less time", loc="left", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#eeeeee", which="major")
    axis.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(out, dpi=120)
    plt.close(figure)
    print(f"written: {out}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path, help="folder for stores and exported networks")
    parser.add_argument("--networks", type=int, default=300)
    parser.add_argument("--policies", nargs="+", choices=sorted(PRESETS), default=list(PRESETS), metavar="PRESET")
    parser.add_argument("--neighbour", nargs="+", choices=list(NEIGHBOURS), default=list(NEIGHBOURS))
    parser.add_argument(
        "--share", nargs="*", default=[], metavar="PRESET=SHARE", help=f"of the networks; else {SHARES}, others all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "retest.json", help="the picture lies beside it")
    arguments = parser.parse_args()
    arguments.shares = SHARES | {name: float(share) for name, share in (one.split("=") for one in arguments.share)}
    arguments.work = arguments.work.absolute()
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.environ["LATLAB_CACHE"] = str(arguments.work)  # the worker's folder, too: nobody else's campaign is in the way
    archs = networks(arguments.networks, arguments.seed)
    opened = lab(arguments.work, REFERENCE, "none")
    with Exports(opened.cache, os.cpu_count() or 1) as exports:
        for future in [exports.submit(ExportRequest(SPACE, arch, "onnx")) for arch in archs]:
            future.result()
    opened.store.close()
    started = time.perf_counter()
    run(arguments, archs)
    took = time.perf_counter() - started
    rows = with_ratios(
        [evaluate(arguments, preset, name) for name in arguments.neighbour for preset in arguments.policies]
    )
    show("Two sessions of each preset", table(rows))
    policies = {name: {"hash": PRESETS[name].hash(), **vars(PRESETS[name])} for name in arguments.policies}
    options = {key: value for key, value in vars(arguments).items() if key not in ("out", "work")}
    save(
        arguments.out,
        {"options": options, "neighbours": NEIGHBOURS, "policies": policies, "seconds": took, "rows": rows},
    )
    draw(rows, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
