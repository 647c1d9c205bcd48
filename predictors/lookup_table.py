"""The layer-wise lookup table: the latency of a network is the sum of the latencies of its blocks.

    t = c + sum over blocks b of p_b (1 + d_kind(b) + d_place(b),kind(b))

p_b is the prior cost of a block: a mixture of multiply-accumulates, bytes and operators or, where blocks were measured
on the target (`latlab measure --blocks`), their latencies. The factor of each kind of cost and the constant c are
fitted to whole networks by non-negative least squares under a weak prior. The deviations d, one per kind of block
(blocks that differ in size only share one) and a smaller one per place and kind, are fitted to the residuals by ridge
regression, to first order in log t; the penalty is chosen by leaving one out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from latlab.predictors.base import Archs, FloatArray, IntArray, Prediction
from latlab.predictors.bases.score_predictor import ScorePredictor
from latlab.predictors.common import serialization as files
from latlab.predictors.common.cost_totals import CHUNK, COSTS, block_costs
from latlab.predictors.common.log_latency import in_ms
from latlab.predictors.common.ridge_regression import ROUNDS, label_weights, ridge, tail_weights
from latlab.predictors.common.score_to_latency import FREEDOM
from latlab.search_spaces import BlockSpace, SearchSpace, blocks_of

__all__ = ["Lookup"]

ANALYTIC = {"macs": 0.6, "bytes": 0.15, "operators": 0.15}
"""Prior shares of each cost in a typical network's latency, where no blocks were measured."""
CONSTANT = 0.1
"""Prior share of the constant c, the rest of the latency."""
MEASURED = (1.0, 0.7)
"""Prior factors of measured blocks: of the latency of a block above that of the quickest block, and of the latency of
the quickest block. A part of the latter is the overhead of a call, which a network pays once."""
PRIOR_WEIGHT = 0.2
"""Weight of the prior of these factors against a label: relative error of a label over relative width of the prior."""
PLACE = 0.5
"""Size of the deviations of a place relative to those of a kind."""
UNTRIED = 0.25
"""Standard deviation of the log-latency of a network around the prediction from measured blocks alone, without any
measured network."""
LEAST = 0.1
"""Smallest prediction, as a share of the median prior cost of the fitted networks; deviations could make it negative.
"""


class Lookup(ScorePredictor):
    """A predictor by the sum over the blocks of a network, measured or fitted to whole networks."""

    name = "lookup"
    title = "Lookup table of blocks, measured or fitted to whole networks; no source devices"
    folds = 5
    is_log_latency = True

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        blocks = blocks_of(space)
        if blocks is None:
            raise ValueError(f"{self.name} needs a space whose networks are sums of blocks; {space.name} is none")
        self._blocks: BlockSpace = blocks
        # Columns of the deviations: kinds, then pairs of place and kind.
        self._kinds = np.append(blocks.kinds, 0)
        self._kind_count, self._place_count = int(blocks.kinds.max()) + 1, int(blocks.places.max()) + 1
        self._executed = np.array([bool(blocks.layers(block, live=True)) for block in blocks.enumerate()])
        self._measured = np.full(blocks.size, np.nan)
        self._set_costs()
        self._table = np.empty(0)

    def use_blocks(self, latency_ms: Mapping[str, float]) -> None:
        """Use latencies of blocks on the target, in ms by name; missing ones are estimated from the others."""
        self._measured = np.array([latency_ms.get(name, np.nan) for name in self._blocks.block_names])
        self._set_costs()
        self.adapt([], [])

    @property
    def _is_measured(self) -> bool:
        """True where enough blocks were measured to estimate the others."""
        return bool(np.isfinite(self._measured).sum() >= 2)

    def _set_costs(self) -> None:
        """Set the prior costs of each block, shape (blocks + 1, kinds of cost), and the prior factors of the kinds."""
        analytic = block_costs(self._blocks)
        if not self._is_measured:
            self._costs = analytic[:, [COSTS.index(cost) for cost in ANALYTIC]]
            self._prior = np.array([CONSTANT, *ANALYTIC.values()])
        else:
            latency = _filled_in(self._measured, analytic[:-1])
            quickest = np.full_like(latency, latency.min())
            self._costs = np.vstack([np.stack([latency - quickest, quickest], axis=1), [0.0, 0.0]])
            if not np.isfinite(self._measured[~self._executed]).any():
                # No block without layers was measured: the exporter removes them.
                self._costs[:-1][~self._executed] = 0
            self._prior = np.array([0.0, *MEASURED])
        # Costs are in units of the cost of a typical network.
        self._typical = self._sums(self._sample).mean(axis=0)
        if self._is_measured:
            self._prior[1:] *= self._typical
        self._costs = self._costs / self._typical

    def _sums(self, genes: IntArray) -> FloatArray:
        """Return the prior costs of networks, shape (n, kinds of cost)."""
        ids = self._blocks.ids(genes)
        return np.stack([column[ids] @ self._blocks.repeats for column in self._costs.T], axis=1)

    def _fit(self, genes: IntArray, log_latency: FloatArray, label_variance: FloatArray) -> None:
        weight = label_weights(label_variance)
        latency, tail = np.exp(log_latency), np.ones_like(weight)
        total = np.full_like(latency, np.median(latency)) if len(latency) else latency
        for _ in range(ROUNDS):
            factors = self._factors(genes, latency, total, weight * tail)
            constant, prior = factors[0], self._costs @ factors[1:]
            shares, total = self._shares(genes, prior, constant)
            rest = log_latency - np.log(total)
            tail = tail_weights(rest - np.median(rest)) if len(rest) else tail
        left = ridge(shares, rest, weight)
        kinds, places = np.split(left.coefficients, [self._kind_count])
        places = PLACE * places.reshape(self._place_count, self._kind_count)
        deviations = kinds[self._kinds] + places[self._blocks.places][:, self._kinds]
        # The table is flat, so that one array lookup by slot and block gives all costs; block -1 costs 0.
        table = self._blocks.repeats[:, None] * prior * (1 + deviations)
        self._table = np.concatenate([[constant], table.ravel()])
        self._least = LEAST * float(np.median(total)) if len(total) else 0.0

    def _factors(self, genes: IntArray, latency: FloatArray, expected: FloatArray, weight: FloatArray) -> FloatArray:
        """Return the constant and the factor of each kind of cost in ms, none negative.

        Errors are relative to the label or to the latency expected of it, whichever is larger. So a label that is wrong
        by orders of magnitude counts for no more than any other.
        """
        prior = self._prior * (1.0 if self._is_measured or not len(latency) else float(np.median(latency)))
        width = np.maximum(prior, 0.05 * prior.sum())
        design = np.hstack([np.ones((len(genes), 1)), self._sums(genes)])
        root = np.sqrt(weight) / np.maximum(latency, expected)
        rows = np.vstack([design * root[:, None], PRIOR_WEIGHT * np.diag(1 / width)])
        return np.asarray(nnls(rows, np.concatenate([latency * root, PRIOR_WEIGHT * prior / width]))[0])

    def _shares(self, genes: IntArray, prior: FloatArray, constant: float) -> tuple[FloatArray, FloatArray]:
        """Return the shares of each kind, and of each place and kind, in the networks' prior costs; and these in ms."""
        ids = self._blocks.ids(genes)
        cost = prior[ids] * self._blocks.repeats
        total = constant + cost.sum(axis=1)
        cost /= total[:, None]
        rows = np.broadcast_to(np.arange(len(genes))[:, None], ids.shape)
        kinds = np.zeros((len(genes), self._kind_count))
        places = np.zeros((len(genes), self._place_count, self._kind_count))
        np.add.at(kinds, (rows, self._kinds[ids]), cost)
        np.add.at(places, (rows, self._blocks.places[None, :], self._kinds[ids]), PLACE * cost)
        return np.hstack([kinds, places.reshape(len(genes), self._place_count * self._kind_count)]), total

    def _scores(self, genes: IntArray) -> FloatArray:
        slots = np.arange(len(self._blocks.places)) * (self._blocks.size + 1)
        found = np.empty(len(genes))
        for start in range(0, len(genes), CHUNK):
            ids = self._blocks.ids(genes[start : start + CHUNK])
            ids[ids < 0] = self._blocks.size
            found[start : start + CHUNK] = self._table[1:][ids + slots].sum(axis=1)
        return np.asarray(np.log(np.maximum(found + self._table[0], self._least)))

    def predict(self, archs: Archs) -> Prediction:
        """Predict `archs`; measured blocks give a scale in ms, so that no network needs to have been measured."""
        if len(self._genes) or not self._is_measured:
            return super().predict(archs)
        log_ms = self._scores(self.space.genes(archs))
        return in_ms(log_ms, np.full_like(log_ms, UNTRIED**2), FREEDOM, shift=0.0)

    def _state(self) -> files.Arrays:
        return {"table_ms": self._table, "least_ms": np.array([self._least]), "blocks_ms": self._measured}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._table, self._least = arrays["table_ms"], float(arrays["least_ms"][0])
        self._measured = arrays["blocks_ms"]
        slots, size = len(self._blocks.places), self._blocks.size
        if len(self._measured) != size or len(self._table) != 1 + slots * (size + 1):
            raise ValueError(f"its blocks are not the {size} of {self.space.name}")
        self._set_costs()


def _filled_in(measured: FloatArray, costs: FloatArray) -> FloatArray:
    """Return the latencies of all blocks, with those that are NaN estimated from the costs of the block.

    Overhead and prices of the costs are fitted to the measured blocks by non-negative least squares of relative errors.

    Args:
        measured: latencies in ms, shape (blocks,).
        costs: shape (blocks, kinds of cost).
    """
    known = np.isfinite(measured)
    design = np.hstack([np.ones((len(costs), 1)), costs / costs.mean(axis=0)])
    factors = nnls(design[known] / measured[known, None], np.ones(int(known.sum())))[0]
    return np.asarray(np.where(known, measured, design @ factors))
