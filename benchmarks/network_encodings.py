"""Zero-cost proxies: how many a core-hour gives, and how they agree with nasflat_latency's table of FBNet.

    python benchmarks/network_encodings.py --data DATA [--cells 120] [--chains 100] [--only-compare]
    python benchmarks/network_encodings.py --train

The proxies of `--cells` random networks of NAS-Bench-201 and of the first `--chains` of FBNet's table are computed in
two processes through the cache, and the wall time of those that were not in it is taken. Then each proxy is timed alone
on one core (a network's construction counted apart). The comparison is Spearman over these networks of FBNet, and
within blocks of 50 rows, which the publishers computed with one batch of CIFAR-100 each. `--train`
takes the time of training Arch2Vec and CATE for both spaces, side by side, each on one core. Results:
`results/encodings.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from latlab.harness.distributed.local import in_processes, one_thread

one_thread()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from common import RESULTS, save, show  # noqa: E402

from latlab import predictors  # noqa: E402
from latlab.harness.bench.tables import read_table  # noqa: E402
from latlab.harness.encoding.compute import encode_networks  # noqa: E402
from latlab.harness.encoding.tables import read_encoding_table  # noqa: E402
from latlab.harness.paths import cache_folder  # noqa: E402
from latlab.predictors.common.metrics import spearman  # noqa: E402
from latlab.predictors.encodings import zero_cost  # noqa: E402
from latlab.predictors.encodings.encode import encode  # noqa: E402
from latlab.predictors.encodings.names import PROXIES  # noqa: E402
from latlab.search_spaces import SearchSpace, get  # noqa: E402

PATH = RESULTS / "encodings.json"
BLOCK = 50
TIMED = 4
JOBS = 2


def alone(space: SearchSpace) -> dict[str, float]:
    """Return CPU seconds per network of what each proxy needs alone, and of the construction of a network."""
    spent: dict[str, float] = {}

    def timed(name: str, work: object) -> object:
        started = time.process_time()
        result = work()  # type: ignore[operator]
        spent[name] = spent.get(name, 0.0) + (time.process_time() - started) / TIMED
        return result

    for arch in space.sample(TIMED, 5):
        batch = zero_cost.random_batch(space, arch)
        network = timed("construction", lambda arch=arch: space.build(arch, as_written=True))
        timed("all", lambda arch=arch: zero_cost.zero_cost_proxies(space, arch))
        zero_cost._draw(network, zero_cost.weights_of(space))
        weights = [layer.weight for layer in zero_cost._layers(network)]

        def loss(network=network, batch=batch) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(network(batch.images), batch.labels)

        def curved(loss=loss, weights=weights) -> None:
            first = torch.autograd.grad(loss(), weights, create_graph=True, allow_unused=True)
            product = sum((g.detach() * g).sum() for g in first if g is not None)
            torch.autograd.grad(product, weights, allow_unused=True)

        def jacobian(network=network, batch=batch) -> None:
            images = batch.images.clone().requires_grad_(True)
            torch.autograd.grad(network(images).sum(), images, allow_unused=True)

        with torch.no_grad():
            timed("nwot", loss)
        one_gradient = lambda loss=loss, weights=weights: torch.autograd.grad(loss(), weights, allow_unused=True)  # noqa: E731
        timed("snip, plain, grad_norm, fisher (each)", one_gradient)
        timed("grasp", curved)
        timed("jacov, epe_nas (each)", jacobian)
        timed("synflow", lambda arch=arch, network=network: zero_cost._synflow(network, space.input_shape(arch)))
        timed("zen", lambda network=network, batch=batch: zero_cost._zen(network, batch.images.shape))
    return spent


def training(task: tuple[str, str]) -> float:
    """Return the seconds that an encoding takes to train for a space, or to be read from the cache."""
    predictors.keep_in(cache_folder)
    space = get(task[0])
    genes = space.genes(space.sample(1))
    started = time.perf_counter()
    encode(space, genes, task[1])
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LATLAB_DATA", "data")))
    parser.add_argument("--cells", type=int, default=120)
    parser.add_argument("--chains", type=int, default=100)
    parser.add_argument("--only-compare", action="store_true", help="take no times")
    parser.add_argument("--train", action="store_true", help="only time the training of Arch2Vec and CATE")
    given = parser.parse_args()
    figures = json.loads(PATH.read_text()) if PATH.exists() else {}
    if given.train:
        tasks = [(space, name) for space in ("fbnet", "nasbench201") for name in ("cate", "arch2vec")]
        for place, seconds in in_processes(training, tasks, JOBS):
            if seconds > 2:  # else it was read from the cache
                figures.setdefault("training_s", {})[" ".join(tasks[place])] = seconds
            print(*tasks[place], f"{seconds:.1f} s", flush=True)
        save(PATH, figures)
        return
    table = read_table(given.data / "fbnet_latency_ms.parquet", "fbnet")
    cells = get("nasbench201")
    chosen = {cells: cells.genes(cells.sample(given.cells, 0)), table.space: table.genes[: given.chains]}
    rates = figures.setdefault("rates", {})
    for space, genes in chosen.items():
        started = time.perf_counter()
        found = encode_networks(space, genes, "zcp", jobs=JOBS)
        seconds = time.perf_counter() - started
        if space is table.space:
            ours = found.table[list(PROXIES)].to_numpy()
        if found.computed >= 20 and not given.only_compare:
            rates[space.name] = {
                "networks": found.computed,
                "processes": JOBS,
                "seconds": seconds,
                "minutes_per_1000": seconds / found.computed * 1000 / 60,
                "cpu_seconds_alone": alone(space),
            }
            show(space.name, [{"what": k, "value": v} for k, v in rates[space.name].items() if k[0] != "c"])
            times = rates[space.name]["cpu_seconds_alone"]
            show("alone, one core", [{"proxy": k, "s": v, "per core-hour": 3600 / v} for k, v in times.items()])
    published = read_encoding_table(given.data / "fbnet_zcp.parquet", table.space, table.genes)
    theirs = published(chosen[table.space])[:, [list(published.columns).index(name) for name in PROXIES]]
    rows = []
    for column, name in enumerate(PROXIES):
        a, b = ours[:, column], theirs[:, column]
        blocks = [slice(start, start + BLOCK) for start in range(0, len(a) - BLOCK + 1, BLOCK)]
        within = [spearman(a[block], b[block]) for block in blocks]
        rows.append(
            {
                "proxy": name,
                "networks": len(a),
                "equal": bool(np.array_equal(a, b)),
                "spearman": spearman(a, b),
                "within_blocks": float(np.mean(within)) if within else None,
            }
        )
    show("FBNet, published", rows)
    save(PATH, {**figures, "published": rows})


if __name__ == "__main__":
    main()
