"""OFA's five limits on a Galaxy Note 10, from its table of blocks: OFA, and CompOFA with fixed and elastic kernels.

The latency of a network is the sum of its blocks' in the lookup table (Cai et al., Once for all, ICLR 2020, its
tutorial; Sahni et al., CompOFA, ICLR 2021, section 4). The table is of the width 1.2 and has the resolutions from 160
to 224; slower or faster ones are out of question. Accuracies are those of OFA's accuracy predictor, which knows no
width. `memoised` means that what was computed for one limit serves the others: for CompOFA with fixed kernels the whole
space is scored once, elsewhere the scores of each network that evolution comes to are kept.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latlab.harness.search.accuracy_models import accuracy_source
from latlab.harness.search.candidates import Candidates, Evolved, Listed
from latlab.harness.search.limits import Constraints, Limit
from latlab.harness.search.scoring import Scorer
from latlab.predictors import Prediction
from latlab.search_spaces import SearchSpace, get
from latlab.search_spaces.ofa_mobilenetv3.compofa import CompOFA
from latlab.search_spaces.ofa_mobilenetv3.skeleton import (
    EXPANSIONS,
    KERNELS,
    MAX_DEPTH,
    SLOTS,
    STAGES,
    Block,
    blocks_of,
    widths,
)
from seeds.methods import Options

__all__ = ["LookupTable", "note10"]

Genes = NDArray[np.int64]
Floats = NDArray[np.float64]

LIMITS_MS = (15, 20, 25, 30, 35)
WIDTH = 1.2
SPACES = ("ofa-mobilenetv3", "compofa-elastic", "compofa")
UNKNOWN_MS = 1e6
"""Latency of a network whose resolution the table lacks."""
EXACT = 1e-9
"""Relative width of the interval of a latency that is looked up."""


class LookupTable:
    """Latencies of networks as sums over a table of blocks."""

    def __init__(self, path: Path) -> None:
        rows = pd.read_parquet(path)
        known: dict[tuple[int, str], float] = {
            (int(row.resolution), row.block): float(row.latency_ms) for row in rows.itertuples()
        }
        self.resolutions = np.unique(rows["resolution"].to_numpy())
        shape = (len(self.resolutions), SLOTS, KERNELS[-1] + 1, EXPANSIONS[-1] + 1)
        self._blocks = np.full(shape, np.nan)
        self._blocks[:, :, 0, 0] = 0.0  # an unused slot
        self._rest = np.zeros(len(self.resolutions))
        for place, resolution in enumerate(self.resolutions.tolist()):
            for kernel in KERNELS:
                for expansion in EXPANSIONS:
                    deepest = blocks_of(resolution, [[(kernel, expansion)] * MAX_DEPTH] * STAGES, WIDTH)
                    self._blocks[place, :, kernel, expansion] = [
                        known[resolution, _name(block)] for block in deepest[1:]
                    ]
            self._rest[place] = sum(known[resolution, name] for name in (*_ends(deepest), _name(deepest[0])))

    def __call__(self, genes: Genes) -> Floats:
        """Return the latencies of networks, given as genes of `ofa-mobilenetv3` (n, 46), in ms: shape (n,)."""
        place = np.searchsorted(self.resolutions, genes[:, 0]).clip(max=len(self.resolutions) - 1)
        kernels, expansions = genes[:, 1 + STAGES :].reshape(-1, 2, SLOTS).swapaxes(0, 1)
        blocks = self._blocks[place[:, None], np.arange(SLOTS), kernels, expansions]
        known = self.resolutions[place] == genes[:, 0]
        return np.where(known, self._rest[place] + blocks.sum(axis=1), UNKNOWN_MS)


def _name(block: Block) -> str:
    """Return the name that the published table gives a block."""
    size, out = block.size, block.out_size
    flags = f"idskip:{int(block.has_identity)}-se:{int(block.has_se)}-hs:{int(block.has_hswish)}"
    shapes = f"input:{size}x{size}x{block.in_channels}-output:{out}x{out}x{block.out_channels}"
    return f"expanded_conv-{shapes}-expand:{block.middle_channels}-kernel:{block.kernel}-stride:{block.stride}-{flags}"


def _ends(blocks: tuple[Block, ...]) -> tuple[str, ...]:
    """Return the names of the layers before and after the blocks."""
    stem, *_, last, final, mixed = widths(WIDTH)
    size, out = blocks[0].size, blocks[-1].out_size
    return (
        f"Conv-input:{2 * size}x{2 * size}x3-output:{size}x{size}x{stem}",
        f"Conv_1-input:{out}x{out}x{last}-output:{out}x{out}x{final}",
        f"AvgPool2D-input:{out}x{out}x{final}-output:1x1x{final}",
        f"Conv_2-input:1x1x{final}-output:1x1x{mixed}",
        f"Logits-input:1x1x{mixed}-output:1000",
    )


class _Memo:
    """What a function of genes has said, kept by the network."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._known: dict[bytes, float] = {}
        self.computed = 0

    def __call__(self, genes: Genes) -> Floats:
        keys = [row.tobytes() for row in np.ascontiguousarray(genes)]
        new = [row for row, key in enumerate(keys) if key not in self._known]
        if new:
            self._known.update(zip([keys[row] for row in new], self._function(genes[new]).tolist(), strict=True))
            self.computed += len(new)
        return np.array([self._known[key] for key in keys])


class _Counted:
    """A function of genes, with the number of networks that it was asked about."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self.computed = 0

    def __call__(self, genes: Genes) -> Floats:
        self.computed += len(genes)
        return np.asarray(self._function(genes), np.float64)


class _Source:
    """A function as a source of accuracies (`search.accuracy.AccuracySource`)."""

    name, identity, quick = "OFA's accuracy predictor", "", True

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, genes: Genes) -> Floats:
        return self._function(genes)  # type: ignore[no-any-return]


def note10(options: Options) -> list[dict[str, Any]]:
    """Return a row for each space and limit: the best accuracy over the seeds, its latency, and seconds of CPU."""
    lookup = LookupTable(options.data / "ofa_note10_lookup_table_ms.parquet")
    rows = []
    for name in SPACES:
        space = get(name)
        accuracy = accuracy_source(options.data / "ofa_accuracy_predictor.npz", space)
        plain = _searches(space, lookup, accuracy, options, _Counted)
        memoised = _searches(space, lookup, accuracy, options, _Memo)
        for limit in LIMITS_MS:
            one, other = plain[limit], memoised[limit]
            assert one["accuracy"] == other["accuracy"], "a memo changes no answer"
            rows.append(
                {
                    "space": name,
                    "limit ms": limit,
                    **one,
                    "memoised: cpu s": other["cpu s"],
                    "memoised: computed": other["computed"],
                }
            )
        print(*rows[-len(LIMITS_MS) :], sep="\n", flush=True)
    return rows


def _searches(
    space: SearchSpace, lookup: LookupTable, accuracy: Any, options: Options, kind: type[_Memo] | type[_Counted]
) -> Mapping[int, dict[str, Any]]:
    """Return what is found below each limit, one limit after another."""
    in_ofa = space.ofa_genes if isinstance(space, CompOFA) else np.asarray
    latency, worth = kind(lambda genes: lookup(in_ofa(genes))), kind(accuracy)
    whole: Candidates
    whole = Listed(space.genes(list(space.enumerate()))) if space.finite else Evolved(space)
    found = {}
    for limit in LIMITS_MS:
        accuracies, best = [], (-np.inf, 0.0)
        start, computed = time.process_time(), worth.computed
        seeds = 1 if isinstance(whole, Listed) else options.seeds
        for seed in range(seeds):
            scorer = Scorer(
                space,
                _Source(worth),
                [lambda genes: _exact(latency(genes))],
                Constraints((Limit("note10", float(limit)),)),
            )
            scores, _ = whole.look(scorer, seed, None, None)
            good = scores.at(scores.probability >= 0.5)
            row = int(good.accuracy.argmax())
            accuracies.append(float(good.accuracy[row]))
            best = max(best, (float(good.accuracy[row]), float(good.latency_ms[row, 0])))
        found[limit] = {
            "accuracy": best[0],
            "mean accuracy": float(np.mean(accuracies)),
            "latency ms": best[1],
            "cpu s": (time.process_time() - start) / seeds,
            "computed": (worth.computed - computed) / seeds,
        }
    return found


def _exact(latency: Floats) -> Prediction:
    """Return latencies that are known as predictions."""
    return Prediction(latency, EXACT * latency, (1 - EXACT) * latency, (1 + EXACT) * latency)
