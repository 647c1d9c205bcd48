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
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latlab.harness.distributed.local import one_thread

one_thread()

import numpy as np  # noqa: E402
from common import RESULTS, save, show  # noqa: E402

from latlab.harness.bench.evaluate import predicted_per_s  # noqa: E402
from latlab.harness.bench.predictor_spec import PredictorSpec, parse_specs  # noqa: E402
from latlab.harness.bench.protocols import PROTOCOLS, generator  # noqa: E402
from latlab.harness.bench.tables import LatencyTable  # noqa: E402
from latlab.harness.bench.tasks import published_task  # noqa: E402
from latlab.predictors import Predictor, SourceDevice, predictor_class  # noqa: E402
from latlab.predictors.brp_nas import BRPNAS  # noqa: E402
from latlab.predictors.common.metrics import spearman  # noqa: E402
from latlab.predictors.help import Help  # noqa: E402
from latlab.predictors.ofa_mlp import FACTS, GPUS, OFAMLP, rmse_percent  # noqa: E402

Figures = dict[str, Any]
CHECKPOINTS = {"fbnet": "fbnet", "ofa-mobilenetv3": "ofa"}
HELP = PROTOCOLS["help"]
DRAWS = 10
"""Supports that are drawn for each trained predictor and target."""
VALIDATION = {
    "ND": ("titanx_1", "titanx_32", "titanx_256", "gold_6240"),
    "FD": ("titanx_1", "titanx_32", "titanx_64", "gold_6240"),
    "OFA": ("titan_rtx_1", "titan_rtx_32"),
}
"""Devices that help to select HELP's weights in its scripts, and are neither sources nor targets."""
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


@dataclass(frozen=True)
class Given:
    """What the command line asks for."""

    data: Path
    models: Path
    checkpoints: Path | None
    seeds: int
    draws: int
    pool_episodes: int
    episodes: int
    """Episodes of all trained predictors of Table 2."""
    steps: int
    """Steps of a training of Once-for-all's predictor."""
    brp_devices: int
    """Number of targets on which BRP-NAS is trained."""

    def seeds_of(self, text: str, one: Setting) -> list[int]:
        """Return the seeds of which a trained predictor is there; all for one that needs no training."""
        lasting = predictor_class(text.partition(":")[0]).pretraining_lasts
        if not lasting:
            return [0]
        return [seed for seed in range(self.seeds) if (self.models / folder_of(text, one, seed)).exists()]


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


def folder_of(text: str, one: Setting, seed: int) -> str:
    """Return the name of a trained predictor's folder."""
    return re.sub("[:=,/]", "-", f"{text} {one.name} {seed}").replace(" ", "_")


def trained(text: str, one: Setting, seed: int, models: Path) -> Predictor:
    """Return a predictor that is trained on the sources of a setting by HELP's protocol, from its folder if it has one.

    Args:
        text: the predictor as the command line writes it.
    """
    plain = text.replace(":as_published=on", "").replace(",as_published=on", "")
    (spec,), (named,) = parse_specs(plain), parse_specs(text)
    folder, space = models / folder_of(plain, one, seed), one.table.space
    if (folder / "seconds.json").exists():
        predictor = predictor_class(spec.name).load(folder, space)
    else:
        started, cpu = time.time(), time.process_time()
        predictor = _created(spec, one, seed)
        sources = source_devices(one, one.sources)
        if isinstance(predictor, Help) and one.validation:
            predictor.pretrain(sources, validation=source_devices(one, one.validation))
        else:
            predictor.pretrain(sources)
        if not predictor.pretraining_lasts:
            return predictor
        seconds = {"cpu_s": time.process_time() - cpu, "wall_s": time.time() - started}
        predictor.save(folder)
        (folder / "seconds.json").write_text(json.dumps(seconds))
        print(f"trained {folder.name}: {seconds['cpu_s']:.0f} s of CPU", flush=True)
    if isinstance(predictor, Help):
        predictor.as_published = dict(named.options).get("as_published", False) is True
    return predictor


def _created(spec: PredictorSpec, one: Setting, seed: int) -> Predictor:
    """Return a new predictor; HELP's pools are trimmed by the protocol, and are not trimmed again."""
    options = dict(spec.options)
    if issubclass(predictor_class(spec.name), Help):
        options.setdefault("trimmed", 0.0)
    return PredictorSpec(spec.name, tuple(sorted(options.items()))).create(one.table.space, seed)


BASELINES = ("maml", "meta-sgd", "anp", *list(ABLATION.values())[:3])
ABLATED = tuple(text for text in ABLATION.values() if text != "help")
POOLS = (3, 6, 9, 12, 15)
"""Numbers of source devices of Figure 5; the paper has 3 to 15."""
POOL_DEVICES = (
    "1080ti_1", "silver_4114", "pixel3", "1080ti_32", "silver_4210r", "samsung_a50", "1080ti_64", "essential_ph_1",
    "samsung_s7", "2080ti_1", "gold_6226", "pixel2", "titanxp_1", "titan_rtx_32", "titan_rtx_64",
)  # fmt: skip
SAMPLES = (10, 20, 50, 100, 200)
"""Numbers of measurements of Figure 3, in addition to the ten references."""


def rhos(predictor: Predictor, one: Setting, device: str, further: int, draws: int = DRAWS) -> list[float]:
    """Return Spearman's correlations on a target, adapted to the references and `further` random measurements.

    The pool, the test set and the references are those of HELP's protocol; all predictors meet the same draws.
    """
    table, found = one.table, []
    first, pool = HELP.first(table, device, predictor), HELP.pool(table, device)
    for draw in range(draws):
        drawn = generator(draw, "support", device).permutation(pool)
        rows = np.concatenate([first, drawn[~np.isin(drawn, first)][:further]])
        predictor.adapt(table.genes[rows], table.column(device)[rows])
        test = HELP.test(table, device, rows)
        found.append(spearman(predictor.predict(table.genes[test]).mean_ms, table.column(device)[test]))
    return found


def scored(text: str, one: Setting, seeds: Sequence[int], given: Given, further: int = 10) -> Figures:
    """Return means and deviations of a predictor over seeds and draws: for each target, and of the mean of targets."""
    each = {device: [] for device in one.targets}
    for seed in seeds:
        predictor = trained(text, one, seed, given.models)
        for device in one.targets:
            each[device].append(rhos(predictor, one, device, further, given.draws))
    values = np.array([each[device] for device in one.targets])  # targets x seeds x draws
    return {
        "targets": {
            device: [float(own.mean()), float(own.std())] for device, own in zip(one.targets, values, strict=True)
        },
        "mean": float(values.mean()),
        "deviation": float(values.mean(axis=0).std()),
        "seeds": len(seeds),
        "draws": given.draws,
    }


def rows_of(name: str, found: Mapping[str, Figures], targets: Sequence[str]) -> None:
    """Print a table with a row for each predictor, and the paper's numbers below."""
    rows = [
        {"predictor": text, **{device: own["targets"][device][0] for device in targets}, "mean": own["mean"],
         "deviation": own["deviation"], "seeds": own["seeds"]}
        for text, own in found.items()
    ]  # fmt: skip
    own = PUBLISHED.get(name)
    if own:
        mean = float(np.mean(list(own.values())))
        rows.append({"predictor": "help (published)", **own, "mean": mean, "deviation": None, "seeds": None})
    show(name, [{key: row.get(key) for key in rows[0]} for row in rows])


def part_help(given: Given) -> Figures:
    """HELP on its own protocol with 10 + 10 measurements; the published weights under the same draws; swapped."""
    found: Figures = {}
    for name in ("ND", "FD", "OFA", "ND swapped"):
        one, own = setting(name, given.data), {}
        seeds = given.seeds_of("help", one)
        for text in ("help", "help:as_published=on") if seeds else ():
            own[text] = scored(text, one, seeds, given)
        named = CHECKPOINTS.get(one.table.space.name)
        file = given.checkpoints / f"{named}.pt" if given.checkpoints and named else None
        if file and not name.endswith("swapped"):
            for more in ("", ",as_published=on"):
                own[f"published weights{more}"] = scored(f"help:checkpoint={file}{more}", one, [0], given)
        if own:
            rows_of(name, own, one.targets)
            found[name] = own
    return found


def part_table2(given: Given) -> Figures:
    """HELP's Table 2 and its ablation, on FBNet: each adapts to the ten measurements that are no references, too."""
    one, found = setting("FD", given.data), {}
    trained_ones = [
        f"{text}{',' if ':' in text else ':'}episodes={given.episodes}"
        for text in dict.fromkeys((*BASELINES, *ABLATION.values()))
    ]
    for text in (*trained_ones, "scratch", "ridge", "roost", "lookup", "flops"):
        seeds = given.seeds_of(text, one)
        if seeds:
            found[text] = scored(text, one, seeds, given)
    rows_of("FD", found, one.targets)
    return found


def part_figure3(given: Given) -> Figures:
    """HELP's Figure 3: measurements of the target against rank correlation, on FBNet."""
    one, found = setting("FD", given.data), {}
    few = replace(given, draws=min(given.draws, 3))
    trained_like = {"meta-sgd": f"meta-sgd:episodes={given.episodes}"}
    names = ("scratch", "meta-sgd", "help", "ridge")
    for name in names:
        text = trained_like.get(name, name)
        seeds = given.seeds_of(text, one)[:1]
        for further in SAMPLES if seeds else ():
            found[f"{name} {further}"] = scored(text, one, seeds, few, further)["mean"]
    show(
        "Figure 3, FD: mean Spearman",
        [{"predictor": name, **{str(n): found.get(f"{name} {n}") for n in SAMPLES}} for name in names],
    )
    return found


def part_figure5(given: Given) -> Figures:
    """HELP's Figure 5: the number of source devices against rank correlation, on FBNet."""
    one, found = setting("FD", given.data), {}
    for count in POOLS:
        own = replace(one, sources=POOL_DEVICES[:count], validation=(), name=f"FD-pool-{count}")
        predictor = trained(f"help:episodes={given.pool_episodes}", own, 0, given.models)
        values = np.array([rhos(predictor, own, device, 10, given.draws) for device in own.targets])
        found[str(count)] = {"mean": float(values.mean()), "deviation": float(values.mean(axis=0).std())}
    show("Figure 5, FD", [{"devices": count, **own} for count, own in found.items()])
    return found


def part_brp(given: Given) -> Figures:
    """HELP's Table 3: BRP-NAS, the lookup table and FLOPs on NAS-Bench-201, trained on the target alone."""
    one, found = setting("ND", given.data), {}
    plan = (("brp-nas:transfer=off", 10), ("brp-nas:transfer=off", 900), ("lookup", 20), ("flops", 20), ("ridge", 20))
    for text, count in (*plan, ("ridge", 900), ("roost", 20)):
        predictor = _created(parse_specs(text)[0], one, 0)
        if text == "roost":
            predictor.pretrain(source_devices(one, one.sources))
        if isinstance(predictor, BRPNAS):
            predictor.folds = 0  # type: ignore[misc]  # intervals are not looked at here
        own = {}
        few = isinstance(predictor, BRPNAS) and count > 10
        for device in one.targets[: given.brp_devices] if few else one.targets:
            table = one.table
            drawn = generator(0, "support", device).permutation(table.measured(device)[:900])[:count]
            predictor.adapt(table.genes[drawn], table.column(device)[drawn])
            test = HELP.test(table, device, drawn)
            own[device] = spearman(predictor.predict(table.genes[test]).mean_ms, table.column(device)[test])
        found[f"{text} {count}"] = {**own, "mean": float(np.mean(list(own.values())))}
        print(text, count, found[f"{text} {count}"], flush=True)
    names = (*one.targets, "mean")
    show("Table 3, ND", [{"predictor": text, **{name: own.get(name) for name in names}} for text, own in found.items()])
    return found


def part_ofa(given: Given) -> Figures:
    """Once-for-all's predictor on its own space: error of each device, learning curve, fine-tuning, other GPUs."""
    one = setting("OFA", given.data)
    table, order = one.table, generator(0, "ofa").permutation(len(one.table.genes))
    test, rest = order[: len(order) * 15 // 100], order[len(order) * 15 // 100 :]
    devices = [name for name in table.latency_ms if name.endswith("_64")]

    def fresh(**options: Any) -> OFAMLP:
        made = OFAMLP(table.space, **{"steps": given.steps, **options})
        made.folds = 0  # type: ignore[misc]  # intervals are not looked at here
        return made

    def error(predictor: OFAMLP, device: str, count: int) -> dict[str, float]:
        rows, column = rest[:count], table.column(device)
        predictor.adapt(table.genes[rows], column[rows])
        guess = predictor.latency_ms(table.genes[test])
        return {
            "rmse_ms": float(np.sqrt(np.mean((guess - column[test]) ** 2))),
            "rmse_percent": rmse_percent(guess, column[test]),
            "spearman": spearman(guess, column[test]),
        }

    found: Figures = {"steps": given.steps}
    found["whole"] = {name: error(fresh(), name, len(rest)) for name in table.latency_ms}
    show("RMSE, 85 % of 5,000 networks", [{"device": name, **own} for name, own in found["whole"].items()])
    found["curve"] = {str(count): error(fresh(), "titan_rtx_64", count) for count in (100, 400, 700, 1000, 2000, 4000)}
    show("Learning curve, titan_rtx_64", [{"networks": n, **own} for n, own in found["curve"].items()])
    found["transfer"] = {}
    for target in devices:
        found["transfer"][f"alone -> {target}"] = error(fresh(), target, 700)
    for base in devices:
        tuned = fresh()
        tuned.pretrain([SourceDevice(base, table.genes[rest], table.column(base)[rest])])
        for target in devices:
            if target != base:
                found["transfer"][f"{base} -> {target}"] = error(tuned, target, 700)
    show("Fine-tuned with 700 networks", [{"pair": name, **own} for name, own in found["transfer"].items()])
    found["general"] = {}
    for gpu in ("2080ti", "titan_rtx", "titan_xp", "v100"):
        sources = [
            SourceDevice(name, table.genes[rest], table.column(name)[rest]) for name in devices if name != f"{gpu}_64"
        ]
        facts = dict(zip(FACTS, GPUS[gpu], strict=True))
        general = fresh(generalised=True, facts=facts)
        general.pretrain(sources)
        column = table.column(f"{gpu}_64")[test]
        guess = general.latency_ms(table.genes[test])
        found["general"][f"{gpu}_64"] = {
            "rmse_percent": rmse_percent(guess, column),
            "bias_percent": float(100 * (guess.mean() / column.mean() - 1)),
            "spearman": spearman(guess, column),
        }
    show("All GPUs but one, 131 inputs", [{"left out": name, **own} for name, own in found["general"].items()])
    return found


def plot(figures: Figures) -> None:
    """Draw Figures 3 and 5 side by side, as far as they are there."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    three, five = figures.get("figure3", {}), figures.get("figure5", {})
    if not three and not five:
        return
    picture, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for text in dict.fromkeys(key.rpartition(" ")[0] for key in three):
        points = [(int(key.rpartition(" ")[2]), value) for key, value in three.items() if key.startswith(f"{text} ")]
        left.plot(*zip(*sorted(points), strict=True), marker="o", label=text)
    left.set(xscale="log", xlabel="measurements of the target, beside ten references", ylabel="Spearman, FBNet")
    left.legend(fontsize=8)
    counts = sorted(map(int, five))
    means, errors = ([five[str(count)][key] for count in counts] for key in ("mean", "deviation"))
    right.errorbar(counts, means, errors, marker="o", capsize=3)
    right.set(xlabel="source devices of help", ylabel="Spearman, FBNet")
    picture.savefig(RESULTS / "papers.png", dpi=110)


def part_times(given: Given) -> Figures:
    """Seconds of CPU time that HELP's adaptation takes, predictions per second, and training as it was."""
    found: Figures = {}
    for name in ("FD", "ND", "OFA"):
        one = setting(name, given.data)
        if not given.seeds_of("help", one):
            continue
        predictor, device = trained("help", one, 0, given.models), one.targets[0]
        rows = HELP.pool(one.table, device)[:20]
        predictor.adapt(one.table.genes[rows], one.table.column(device)[rows])
        started = time.process_time()
        for _ in range(5):
            predictor.adapt(one.table.genes[rows], one.table.column(device)[rows])
        adapt_s = (time.process_time() - started) / 5
        found[name] = {
            "train_cpu_s": json.loads((given.models / folder_of("help", one, 0) / "seconds.json").read_text())["cpu_s"],
            "adapt_cpu_s": adapt_s,
            "predictions_per_s": predicted_per_s(predictor, one.table),
        }
    show("Times of help", [{"task": name, **own} for name, own in found.items()])
    return found


PARTS: Mapping[str, Callable[[Given], Figures]] = {
    "help": part_help,
    "table2": part_table2,
    "figure3": part_figure3,
    "figure5": part_figure5,
    "brp": part_brp,
    "ofa": part_ofa,
    "times": part_times,
}


def train_all(given: Given, seeds: int) -> None:
    """Train what the parts share, the most important first."""
    for seed in range(seeds):
        for name in ("FD", "ND", "OFA", "ND swapped"):
            trained("help", setting(name, given.data), seed, given.models)
        for text in (*BASELINES, "help"):
            more = f"{text}{',' if ':' in text else ':'}episodes={given.episodes}"
            trained(more, setting("FD", given.data), seed, given.models)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=os.environ.get("LATLAB_DATA"), help="the published tables")
    arguments.add_argument("--models", type=Path, required=True, help="folder of trained predictors")
    arguments.add_argument("--checkpoints", type=Path, help="folder with HELP's fbnet.pt and ofa.pt")
    arguments.add_argument("--parts", nargs="*", choices=sorted(PARTS), default=sorted(PARTS))
    arguments.add_argument("--train", action="store_true", help="only train what the parts share")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--draws", type=int, default=DRAWS)
    arguments.add_argument("--pool-episodes", type=int, default=1000, help="episodes of HELP in Figure 5")
    arguments.add_argument("--episodes", type=int, default=2000, help="episodes of Table 2's predictors")
    arguments.add_argument("--steps", type=int, default=3000, help="steps of Once-for-all's predictor")
    arguments.add_argument("--brp-devices", type=int, default=6, help="targets of BRP-NAS")
    words = arguments.parse_args()
    own = {name: value for name, value in vars(words).items() if name not in ("train", "parts")}
    given = Given(**own)
    if words.train:
        train_all(given, words.seeds)
        return
    path = RESULTS / "papers.json"
    figures = json.loads(path.read_text()) if path.exists() else {}
    for name in words.parts:
        figures[name] = PARTS[name](given)
        save(path, {key: value for key, value in figures.items() if key != "machine"})
    plot(figures)


if __name__ == "__main__":
    main()
