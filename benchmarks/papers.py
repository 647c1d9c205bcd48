"""Section 37: the experiments of HELP's paper and of the papers it compares with, on the published tables.

    python benchmarks/papers.py --data FOLDER --models FOLDER [--seeds N] [--parts help table2 ...]

`--models` is where pre-trained predictors are kept, one folder for each predictor, task and seed: a run that is stopped
continues, and parts share them. Each part prints a table; all figures go to `results/papers.json`. Parts that are
not named keep their figures of an earlier run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# PyTorch imports Python's module `profile`, which must be found before the script of that name beside this one.
sys.path.append(sys.path.pop(0))

from latlab.harness.bench.processes import one_thread

one_thread()


from latlab.harness.bench.predictor_spec import PredictorSpec, parse_specs  # noqa: E402
from latlab.harness.bench.protocols import PROTOCOLS  # noqa: E402
from latlab.harness.bench.tables import LatencyTable  # noqa: E402
from latlab.harness.bench.tasks import published_task  # noqa: E402
from latlab.predictors import Predictor, SourceDevice, predictor_class  # noqa: E402
from latlab.predictors.help import Help  # noqa: E402

HELP = PROTOCOLS["help"]
DRAWS = 10
"""Supports that are drawn for each trained predictor and target."""
VALIDATION = {
    "ND": ("titanx_1", "titanx_32", "titanx_256", "gold_6240"),
    "FD": ("titanx_1", "titanx_32", "titanx_64", "gold_6240"),
    "OFA": ("titan_rtx_1", "titan_rtx_32"),
}
"""Devices that help to select HELP's weights in its scripts, and are neither sources nor targets."""
SWAPPED = {"ND": "ND swapped", "FD": "FD swapped"}
PUBLISHED = {
    "ND": {
        "titan_rtx_256": 0.987,
        "gold_6226": 0.989,
        "pixel2": 0.802,
        "raspi4": 0.890,
        "eyeriss": 0.940,
        "fpga": 0.985,
    },
    "FD": {"raspi4": 0.887, "eyeriss": 0.943, "fpga": 0.892},
}
"""HELP's Tables 2 and 3, with 10 + 10 measurements."""
ABLATION = {
    "amortised": "help:condition=off,modulate=off,steps=0",
    "+ hardware condition": "help:modulate=off,steps=0",
    "+ few-shot adaptation": "help:modulate=off",
    "+ z": "help",
}


@dataclass(frozen=True)
class Setting:
    """A table with the devices that are trained on, tested, and only used to select weights."""

    name: str
    table: LatencyTable
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    validation: tuple[str, ...] = ()


def setting(name: str, data: Path) -> Setting:
    """Return a setting of HELP's paper: ND, FD, OFA, or the first two with sources and targets swapped."""
    task = published_task(name.removesuffix(" swapped"), data)
    table, split = task.table(), task.splits[0]
    if name.endswith(" swapped"):
        return Setting(name, table, split.targets, split.sources)
    targets = ("titan_rtx_64",) if name == "OFA" else split.targets
    return Setting(name, table, split.sources, targets, VALIDATION.get(name, ()))


def source_devices(one: Setting, devices: Sequence[str]) -> list[SourceDevice]:
    return HELP.sources(one.table, devices, HELP.source_samples(one.table.space.name), 0)


def trained(text: str, one: Setting, seed: int, models: Path, sources: Sequence[str] | None = None) -> Predictor:
    """Return a predictor that is trained on the sources of a setting by HELP's protocol, from its folder if it has one.

    Args:
        text: the predictor as the command line writes it.
        sources: other sources than those of the setting.
    """
    (spec,) = parse_specs(text)
    devices = one.sources if sources is None else tuple(sources)
    name = (
        f"{text} {one.name} {len(devices)} {seed}".replace(":", "-")
        .replace("=", "-")
        .replace(",", "-")
        .replace(" ", "_")
    )
    folder, space = models / name, one.table.space
    predictor = _created(spec, one, seed)
    if (folder / "seconds.json").exists():
        found = predictor_class(spec.name).load(folder, space)
        if isinstance(found, Help) and isinstance(predictor, Help):
            found.as_published = predictor.as_published
        return found
    started, cpu = time.time(), time.process_time()
    given = source_devices(one, devices)
    if isinstance(predictor, Help) and sources is None and one.validation:
        predictor.pretrain(given, validation=source_devices(one, one.validation))
    else:
        predictor.pretrain(given)
    seconds = {"cpu_s": time.process_time() - cpu, "wall_s": time.time() - started}
    predictor.save(folder)
    (folder / "seconds.json").write_text(json.dumps(seconds))
    print(f"trained {name}: {seconds['cpu_s']:.0f} s of CPU", flush=True)
    return predictor


def _created(spec: PredictorSpec, one: Setting, seed: int) -> Predictor:
    """Return a new predictor; HELP's pools are trimmed by the protocol, and are not trimmed again."""
    options = dict(spec.options)
    if issubclass(predictor_class(spec.name), Help):
        options.setdefault("trimmed", 0.0)
    return PredictorSpec(spec.name, tuple(sorted(options.items()))).create(one.table.space, seed)


TRAININGS: tuple[tuple[str, str, int], ...] = (
    *(("help", "FD", seed) for seed in range(3)),
    ("help", "ND", 0),
    *((text, "FD", seed) for seed in range(3) for text in ("maml", "meta-sgd", "anp", *list(ABLATION.values())[:3])),
    ("help", "OFA", 0),
    ("help", "ND swapped", 0),
    ("help", "ND", 1),
    ("help", "OFA", 1),
    ("help", "ND", 2),
    ("help", "OFA", 2),
    ("help", "ND swapped", 1),
    ("help", "ND swapped", 2),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=os.environ.get("LATLAB_DATA"))
    arguments.add_argument("--models", type=Path, required=True)
    given = arguments.parse_args()
    for text, name, seed in TRAININGS:
        trained(text, setting(name, given.data), seed, given.models)


if __name__ == "__main__":
    main()
