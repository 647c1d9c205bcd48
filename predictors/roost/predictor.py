"""ROOST, Roofline-Synthesised Transfer: a Bayesian linear model of latency with a prior over synthetic devices.

Latency is close to linear in counts of what a network executes (`SearchSpace.features`), so a device is a table of
costs. The prior over such tables is a mixture of Gaussians from thousands of synthetic devices, drawn from a roofline
model, and from the user's other devices (`prior.py`). Labels of the target condition it in closed form
(`posterior.py`). Nothing is trained by gradient descent: pre-training takes seconds, adapting milliseconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from latlab.predictors.base import (
    WIDEST,
    Archs,
    FloatArray,
    LatencyFormula,
    OtherSpace,
    Prediction,
    Predictor,
    SourceDevice,
)
from latlab.predictors.common import serialization as files
from latlab.predictors.common.blas_threads import one_thread
from latlab.predictors.common.log_latency import CENTRAL, from_log, half_width, in_ms, log_labels
from latlab.predictors.roost.constant_networks import are_folded, with_own_level
from latlab.predictors.roost.latency_scale import Level, level_of, level_of_components
from latlab.predictors.roost.other_spaces import informed
from latlab.predictors.roost.posterior import LEVEL, NU, Posterior, absolute_share, condition
from latlab.predictors.roost.prior import (
    LEAST,
    Component,
    SourceTable,
    fit_source,
    mixture,
    synthetic_prior,
)
from latlab.predictors.roost.remarks import contradicted, few_networks, same_latency, two_units
from latlab.search_spaces import SearchSpace

__all__ = ["Roost"]

CHUNK = 1000
"""Number of architectures at a time, such that their features stay in the processor's cache."""
PRIOR_NOISE = 0.06
"""Relative noise, with the misfit of the model, that is assumed of labels as long as there are none."""
FAR = 2.0
"""Largest difference of log-latency between all labels and one that is predicted from them: a factor of 7."""
LEAST_OF_SHORTEST = 0.1
"""Smallest prediction as a share of the shortest label; linear costs may be negative far from all labels."""
CALIBRATION = 10
"""Number of imagined labels that stand beside the real ones in the calibration."""
LEAST_IN_DESIGN = 1.2
"""Least latency, as a share of the median, to which errors are relative in the choice of measurements: errors of most
networks count in milliseconds, as ranks depend on them; of slow ones in percent."""
TAIL = float(special.stdtrit(NU, 0.95) / special.ndtri(0.95)) ** 2
"""Variance, in units of sigma^2, of the Gaussian that has the same central 90 % as the Student t with scale sigma."""
EDITION = 2
"""Number of the model. A folder that another one saved is to be fitted again: it would predict other numbers."""
IMAGINED = 0.9
"""Errors of the imagined labels in the calibration, in units of those for which the intervals are right. Below 1,
because on development devices the intervals of few labels were too wide."""


class Roost(Predictor):
    """The default predictor.

    Args:
        synthetic: include synthetic devices in the prior; otherwise it has source devices only, if there are any.
        sources: include source devices in the prior; otherwise `pretrain` learns nothing.
        robust: discount outliers among the labels (Student-t instead of Gaussian noise).
        facts: hardware facts of the target, for predictions without any label (`latency_scale.FACTS`).
    """

    name = "roost"
    title = "Bayesian cost table with a prior over synthetic (roofline) and source devices"
    pretrains_quickly = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        synthetic: bool = True,
        sources: bool = True,
        robust: bool = True,
        facts: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(space, seed=seed)
        self._synthetic, self._use_sources, self._robust = synthetic, sources, robust
        self._facts = dict(facts or {})
        self._prior = synthetic_prior(space)
        self._informed: tuple[Component, ...] = ()
        self._other_spaces: dict[str, int] = {}
        self._set_sources([])
        self.adapt([], [])

    def pretrain(self, sources: Sequence[SourceDevice]) -> None:
        used = sources if self._use_sources else []
        with one_thread():
            tables = [fit_source(self._prior, device, self._scaled(device.genes)) for device in used]
        self._set_sources(tables)
        self.adapt([], [])

    def use_other_spaces(self, others: Sequence[OtherSpace]) -> None:
        self._informed, self._other_spaces = informed(self.space, others)
        self._set_sources(self._tables)
        self.adapt([], [])

    @property
    def other_spaces(self) -> Mapping[str, int]:
        return dict(self._other_spaces)

    def _set_sources(self, tables: Sequence[SourceTable]) -> None:
        self._tables = tuple(tables)
        self._components: tuple[Component, ...] = mixture(
            self._prior, self._tables, synthetic=self._synthetic, informed=self._informed
        )
        # Without labels in this space, those in others are all that is known of the target.
        known = self._informed or self._components
        mean = sum((c.weight * c.mean for c in known), np.zeros(len(self._prior.scale)))
        second = sum(c.weight * (c.covariance + np.outer(c.mean, c.mean)) for c in known)
        self._prior_mean = mean
        self._prior_covariance = second - np.outer(mean, mean)
        self._level: Level = level_of(self.space, self._tables, self._facts)
        if self._informed:
            self._level = level_of_components(self._informed)

    def _scaled(self, archs: Archs) -> FloatArray:
        return self.space.features(self.space.genes(archs)) / self._prior.scale

    def adapt(self, support: Archs, latency_ms: ArrayLike, stderr_ms: ArrayLike | None = None) -> None:
        self._log_latency, self._label_variance = log_labels(support, latency_ms, stderr_ms)
        self._genes = self.space.genes(support)
        self._posterior: Posterior | None = None
        self.__dict__.pop("_formula", None)  # it was the formula of the fit before
        self._mean, self._covariance = self._prior_mean, self._prior_covariance
        self._noise, self._calibration, self._least, self._typical = PRIOR_NOISE**2, 1.0, 0.0, 0.0
        self._typical_variance = float(np.median(self._label_variance)) if len(self._genes) else 0.0
        if not len(self._genes):
            return
        features = self._scaled(self._genes)
        with one_thread():
            fitted, ordinary = self._conditioned(features)
        self._posterior = fitted
        self._mean, self._covariance, self._noise = fitted.mean, fitted.covariance, fitted.noise
        self._least = LEAST_OF_SHORTEST * float(np.exp(self._log_latency.min()))
        self._typical = float(np.exp(np.median(self._log_latency[ordinary])))
        if ordinary.sum() > 1:
            self._calibration = self._calibrated(ordinary)

    def _conditioned(self, features: FloatArray) -> tuple[Posterior, NDArray[np.bool_]]:
        """Return the posterior, and which labels determine it: networks that the runtime folds to nothing do not."""
        constant = self.space.constant(self._genes)
        some = constant.any() and not constant.all() and not features[constant][:, ~self._prior.of_constant].any()
        for ordinary in (~constant, np.ones_like(constant)) if some else (np.ones_like(constant),):
            labels, variance = self._log_latency[ordinary], self._label_variance[ordinary]
            fitted = condition(self._components, features[ordinary], labels, variance, robust=self._robust)
            if not ordinary.all() and are_folded(fitted, features[constant], self._log_latency[constant]):
                own = self._prior.of_constant
                return with_own_level(fitted, own, features[constant], constant, self._log_latency), ordinary
        return fitted, ordinary

    def _calibrated(self, ordinary: NDArray[np.bool_]) -> float:
        """Return what to multiply variances by, so that intervals hold 90 % of the labels predicted from the others.

        A few imagined labels, for which the intervals are nearly right, stand beside the real ones.
        """
        freedom = CALIBRATION + len(self._genes)
        mean, variance = self._left_out()
        errors = (np.abs(self._log_latency - mean) / np.sqrt(variance))[ordinary]
        shares = (np.arange(CALIBRATION) + 0.5) / CALIBRATION
        imagined = IMAGINED * special.stdtrit(freedom, (1 + shares) / 2)
        return float(np.quantile(np.concatenate([errors, imagined]), CENTRAL) / half_width(freedom)) ** 2

    def _left_out(self) -> tuple[FloatArray, FloatArray]:
        """Return mean and variance of each label's logarithm, predicted from the others, before calibration."""
        assert self._posterior is not None
        mean = self._posterior.left_out_mean
        relative, absolute = self._label_noise()
        noise = relative + (absolute / np.exp(mean)) ** 2 + self._label_variance
        return mean, self._posterior.left_out_variance + noise

    def _label_noise(self) -> tuple[float, float]:
        """Return the noise that labels do not state: a variance of log-latency, and a standard deviation in ms."""
        half = (TAIL if self._robust else 1.0) * self._noise / 2  # one half is relative, one absolute
        return half, float(np.sqrt(half)) * self._typical

    @property
    def noise_variance(self) -> float:
        return self._noise + self._typical_variance

    @property
    def stated_noise_variance(self) -> float:
        return self._typical_variance

    def covariance(self, a: Archs, b: Archs) -> FloatArray:
        return self.covariance_root(a) @ self.covariance_root(b).T

    def covariance_root(self, archs: Archs) -> FloatArray:
        # A network that takes much less than the others would have the largest relative variance, and would be chosen
        # although there are few like it. The level is not known before the first label.
        features = self._scaled(archs)
        least = LEAST_IN_DESIGN * np.median(self._prior.sample @ self._mean)
        with one_thread():
            values, vectors = np.linalg.eigh(self._covariance)
        large = values > 1e-9 * values[-1]
        root = vectors[:, large] * np.sqrt(values[large])
        if self._posterior is None:
            root = np.concatenate([root, LEVEL * self._mean[:, None]], axis=1)
        return np.asarray(features @ root / np.maximum(features @ self._mean, least)[:, None])

    def predict(self, archs: Archs) -> Prediction:
        """Predict `archs`; without any label, from the prior and the level that facts or sources give."""
        genes = self.space.genes(archs)
        parts = [genes[start : start + CHUNK] for start in range(0, max(len(genes), 1), CHUNK)]
        # Several threads would spend most of their time on waiting for one another: the products are small.
        with one_thread() if len(genes) > 1 else nullcontext():
            found = [self._formula.predict(self.space.features(part)) for part in parts]
        if len(found) == 1:
            return found[0]
        names = ("mean_ms", "std_ms", "lower_ms", "upper_ms")
        return Prediction(*(np.concatenate([getattr(one, name) for one in found]) for name in names))

    def formula(self) -> LatencyFormula:
        return self._formula

    @cached_property
    def _formula(self) -> LatencyFormula:
        # The table is in units of scaled features. Here it is scaled, so that each architecture need not be.
        scale = self._prior.scale
        factor, noise, absolute = 1.0, self._typical_variance, 0.0
        freedom: float = CALIBRATION + len(self._genes)
        if self._posterior is None:
            factor, noise, freedom = float(np.exp(self._level.log_ms)), self._level.variance, np.inf
        else:
            unstated, absolute = self._label_noise()
            noise += unstated
        return LatencyFormula(
            table=self._mean / scale,
            covariance=self._covariance / np.outer(scale, scale),
            least=self._least or LEAST,
            factor=factor,
            noise=noise,
            absolute=absolute,
            calibration=self._calibration,
            half_width=float(half_width(freedom)),
        )

    def leave_one_out(self) -> Prediction:
        if self._posterior is None or len(self._genes) < 2:
            raise ValueError("leaving one out needs at least two measurements")
        mean, variance = self._left_out()
        # A label far from all others can be predicted as anything from them.
        near = np.clip(mean, self._log_latency.min() - FAR, self._log_latency.max() + FAR)
        return in_ms(near, np.minimum(self._calibration * variance, WIDEST), CALIBRATION + len(self._genes), 0.0)

    def remarks(self) -> tuple[str, ...]:
        if self._posterior is None:
            return ()
        found = [same_latency(self._log_latency, self._genes), few_networks(self._genes)]
        if any(found):
            return tuple(filter(None, found))
        constant = self.space.constant(self._genes)
        typical = np.log(np.maximum(self._scaled(self._genes) @ self._prior.broad.mean, LEAST))
        mixed = two_units(self._log_latency[~constant], typical[~constant])
        if mixed:
            return (mixed,)
        mean, variance = self._left_out()
        # A constant network that takes much less than others is no mistake: it is folded to nothing.
        some = ~constant | (self._log_latency > mean)
        labels = self._log_latency[some]
        names = [arch.text for arch in self.space.architectures(self._genes[some])]
        weight = self._posterior.precision[some] / absolute_share(labels)
        return contradicted(names, labels, mean[some], np.sqrt(variance[some]), weight)

    def save(self, folder: str | Path) -> None:
        arrays = {
            "genes": self._genes,
            "log_latency": self._log_latency,
            "label_variance": self._label_variance,
            "source_means": np.array([table.mean for table in self._tables]),
            "source_covariances": np.array([table.covariance for table in self._tables]),
            "source_mean_ms": np.array([table.mean_ms for table in self._tables]),
        }
        facts = {
            "sources": [table.name for table in self._tables],
            "options": {
                "synthetic": self._synthetic,
                "sources": self._use_sources,
                "robust": self._robust,
                "facts": self._facts,
            },
            "prior": self._fingerprint(),
        }
        if self._informed:
            # Kept as they are: to make them again would take the joint prior, which takes seconds.
            facts["other_spaces"] = self._other_spaces
            arrays |= {
                "informed_means": np.array([one.mean for one in self._informed]),
                "informed_covariances": np.array([one.covariance for one in self._informed]),
                "informed_weights": np.array([one.weight for one in self._informed]),
                "informed_levels": np.array([one.level for one in self._informed]),
            }
        files.save(folder, self.name, self.space, arrays, facts)

    def _fingerprint(self) -> str:
        """Return a hash of the model and of its synthetic prior, in whose units tables are and which is made again."""
        rounded = np.concatenate([[EDITION], self._prior.scale, self._prior.broad.mean]).astype(np.float32).round(3)
        return hashlib.sha256(rounded.tobytes()).hexdigest()[:16]

    @classmethod
    def load(cls, folder: str | Path, space: SearchSpace) -> Self:
        arrays, facts = files.load(folder, cls.name, space)
        with files.restoring(folder):
            predictor = cls(space, **facts["options"])
            if facts["prior"] != predictor._fingerprint():
                raise ValueError("its model or its synthetic prior is another one")
            kept = zip(
                facts["sources"],
                arrays["source_means"],
                arrays["source_covariances"],
                arrays["source_mean_ms"].tolist(),
                strict=True,
            )
            names = ("informed_means", "informed_covariances", "informed_weights", "informed_levels")
            informed_by = zip(*(arrays[name] for name in names), strict=True) if names[0] in arrays else ()
            predictor._informed = tuple(
                Component("other space", mean, covariance, float(weight), (1.0,), float(level))
                for mean, covariance, weight, level in informed_by
            )
            predictor._other_spaces = {str(name): int(labels) for name, labels in facts.get("other_spaces", {}).items()}
            predictor._set_sources([SourceTable(*table) for table in kept])
            predictor.adapt(arrays["genes"], *from_log(arrays["log_latency"], arrays["label_variance"]))
        return predictor
