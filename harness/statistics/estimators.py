"""From raw samples to a latency and its error bar: pure functions of recorded numbers.

Samples are nanoseconds in their order of measurement; a pass is one short run of samples, and a network is measured in
several passes spread out in time.

Sources:
    Tukey and McLaughlin (1963), Sankhya A 25, 331-352: the trimmed mean and its Winsorised standard error.
    Yuen (1974), Biometrika 61, 165-170: its degrees of freedom, h - 1.
    Kendall (1954), Biometrika 41, 403-404: the bias of autocorrelations.
    Gelman (2006), Bayesian Analysis 1, 515-534: half-Cauchy priors where groups are few.
    Smyth (2004), Stat. Appl. Genet. Mol. Biol. 3, 3: variances of many, shrunk towards what is usual.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, fmean
from typing import NamedTuple

import numpy as np
from scipy import special

from latlab.harness.timing_policy import TimingPolicy

__all__ = [
    "EFFECTS",
    "NoiseModel",
    "Summary",
    "Within",
    "ar1_inflation",
    "autocorrelation",
    "between_stderr",
    "needs_pass",
    "summarise",
    "t_quantile",
    "trimmed_mean",
    "variance_inflation",
    "winsorise",
    "winsorised_stderr",
    "within_passes",
]

CONFIDENCE = 0.95
BATCHES = 20
"""Batch means: as many batches as give a usable variance, each long enough to outlast correlations."""
MIN_BATCH = 20
NO_EFFECT = 0.7
"""Probability, before anything is measured, that passes differ by no more than their samples explain."""
USUAL_EFFECT = 3.0
"""Otherwise: how much more they scatter, in standard errors of one pass. The scale of a half-Cauchy distribution."""
EFFECTS = (0.0, *(10 ** (k / 4 - 2) for k in range(25)))
_SHARES = [effect / (USUAL_EFFECT**2 + effect**2) for effect in EFFECTS]
EFFECT_PRIORS = (NO_EFFECT, *((1 - NO_EFFECT) * share / sum(_SHARES) for share in _SHARES[1:]))
LEAST_CORRELATION, MOST_CORRELATION = -0.3, 0.95
_NS_PER_MS = 1e6


@dataclass(frozen=True)
class NoiseModel:
    """How networks scatter on a device in a session, learnt from many of them (`harness.quality.noise_model`)."""

    variance: float
    """Of one sample, Winsorised, as a share of the latency squared: its standard error squared would be this over n if
    samples were independent."""
    freedom: float
    """Degrees of freedom that this knowledge is worth for one network: many where all scatter alike."""
    correlation: float
    """Of successive samples."""
    effects: tuple[float, ...]
    """Probability of each of `EFFECTS`."""


class Within(NamedTuple):
    """What the samples of a network say apart from differences between its passes."""

    variance: float
    """As `NoiseModel.variance`, but low by (n - g) / (n - 1), g their inflation and n the samples of a pass."""
    freedom: float
    squares: float
    products: float
    """Sums over Winsorised samples around their pass's mean, relative to the latency: squares, and products of
    successive ones."""


@dataclass(frozen=True)
class Summary:
    """What the samples of one network say."""

    latency_ms: float
    """Trimmed mean of the samples of all passes together."""
    stderr_ms: float
    """Standard error of `latency_ms`: of a normal distribution, the interval would be as wide. 0 where a single
    sample, or samples that are all equal, tell nothing about it."""
    low_ms: float
    high_ms: float
    """The 95 % interval."""
    passes: int
    samples: int
    autocorrelation: float
    """Of successive samples of a pass (lag 1), between -.3 and .95."""

    @property
    def relative_half_width(self) -> float:
        """Half the interval's width, as a share of the latency."""
        return (self.high_ms - self.low_ms) / 2 / self.latency_ms if self.latency_ms else math.inf


def trimmed_mean(samples: Sequence[float], trim: float) -> float:
    """Mean of what is left when the `floor(trim * n)` smallest and as many of the largest samples are cut.

    Args:
        trim: share cut at each end, in [0, 0.5).
    """
    ordered = sorted(samples)
    cut = _cut(len(ordered), trim)
    return fmean(ordered[cut : len(ordered) - cut])


def winsorised_stderr(samples: Sequence[float], trim: float) -> float:
    """Standard error of `trimmed_mean` for independent samples: sqrt(SSD_w / (h (h - 1))).

    SSD_w is the sum of squared deviations of the Winsorised samples (the cut ones replaced by the nearest
    that are kept), h the number of samples kept. 0 when h < 2.
    """
    values = winsorise(samples, trim)
    kept = len(values) - 2 * _cut(len(values), trim)
    if kept < 2:
        return 0.0
    mean = fmean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (kept * (kept - 1)))


def between_stderr(passes: Sequence[Sequence[float]], trim: float) -> float:
    """Standard error of the trimmed mean of all samples, from at least two passes taken as the independent units.

    The trimmed mean responds to a sample by its Winsorised deviation over the h samples kept (Tukey and
    McLaughlin); summed over each pass to U_p, the variance is P / (P - 1) sum(U_p^2) / h^2, as for any mean
    of clusters. With one sample a pass this is `winsorised_stderr`, up to (P - 1) / (h - 1).
    """
    flat = [sample for one in passes for sample in one]
    values = winsorise(flat, trim)
    mean = fmean(values)
    kept = len(flat) - 2 * _cut(len(flat), trim)
    total, start = 0.0, 0
    for one in passes:
        total += sum(value - mean for value in values[start : start + len(one)]) ** 2
        start += len(one)
    count = len(passes)
    return math.sqrt(count / (count - 1) * total) / kept


def autocorrelation(passes: Sequence[Sequence[float]], trim: float) -> float:
    """Correlation of successive samples within passes, around the mean of all: one figure for all passes.

    Samples are Winsorised, so that a burst is no correlation. The estimate from n samples is low by about
    (1 + 4 r) / n (Kendall 1954), which is put right; it stays between -.3 and .95. 0 for fewer than ten samples, which
    tell nothing.
    """
    flat = winsorise([sample for one in passes for sample in one], trim)
    count = len(flat)
    if count < 10:
        return 0.0
    mean = fmean(flat)
    total = sum((value - mean) ** 2 for value in flat)
    pairs = count - len(passes)
    if total == 0 or pairs < 1:
        return 0.0
    products, start = 0.0, 0
    for one in passes:
        values = flat[start : start + len(one)]
        products += sum((a - mean) * (b - mean) for a, b in pairwise(values))
        start += len(one)
    found = products / total * count / pairs
    return min(MOST_CORRELATION, max(LEAST_CORRELATION, (found + 1 / count) / (1 - 4 / count)))


def ar1_inflation(correlation: float, count: int) -> float:
    """How much larger the variance of a mean of `count` successive samples is than independence would make it.

    1 + 2 sum_k (1 - k / n) r^k, of an AR(1) process with lag-1 correlation r.
    """
    r, n = correlation, count
    return (1 + r) / (1 - r) - 2 * r * (1 - r**n) / (n * (1 - r) ** 2)


def variance_inflation(samples: Sequence[float], trim: float) -> float:
    """The same of one long pass, whatever its correlations are: by batch means.

    The Winsorised samples, in order, are cut into `BATCHES` equal batches of m: m Var(batch means) /
    Var(samples) estimates 1 + 2 sum(rho_k). 0 where there are too few samples for that.
    """
    size = len(samples) // BATCHES
    if size < MIN_BATCH:
        return 0.0
    values = winsorise(samples, trim)[: size * BATCHES]
    total = _variance(values)
    if total == 0:
        return 0.0
    means = [fmean(values[start : start + size]) for start in range(0, len(values), size)]
    return size * _variance(means) / total


def within_passes(passes: Sequence[Sequence[float]], trim: float) -> Within:
    """What `NoiseModel` is learnt from, of one network."""
    flat = [sample for one in passes for sample in one]
    count, kept = len(flat), len(flat) - 2 * _cut(len(flat), trim)
    latency = trimmed_mean(flat, trim)
    values = winsorise(flat, trim)
    squares = products = 0.0
    start = 0
    for one in passes:
        part = values[start : start + len(one)]
        mean = fmean(part)
        squares += sum((value - mean) ** 2 for value in part)
        products += sum((a - mean) * (b - mean) for a, b in pairwise(part))
        start += len(one)
    rest = count - len(passes)
    if not rest or kept < 2 or not latency:
        return Within(0.0, 0.0, 0.0, 0.0)
    variance = squares / rest * (count - 1) * count / (kept * (kept - 1)) / latency**2
    return Within(variance, rest * kept / count, squares / latency**2, products / latency**2)


def summarise(passes: Sequence[Sequence[int]], trim: float, noise_model: NoiseModel | None = None) -> Summary:
    """Latency and error bar from the samples of all passes.

    The latency is the trimmed mean of all samples together, so that a burst which spoils one pass of five
    loses most of its weight (for one pass it is what HELP computes).

    The interval knows two errors: of the samples within passes, inflated by g for their autocorrelation (V_A, with
    d = (h - 1) / g^1.5 degrees of freedom, since g is an estimate too), and of the passes, which may differ by more
    than that (V_B of `between_stderr`, P - 1 degrees of freedom). Which of them holds is not known, and to take V_B
    alone invites luck: three passes that agree by chance would be the last. So it is averaged over the excess of the
    passes' variance over the samples', tau^2, where tau, in standard errors of one pass, is 0 or half-Cauchy (Gelman
    2006): with k = 1 + tau^2, S = (P - 1) V_B / V_A, and 1/v as the prior of the samples' variance v, each k weighs

        p(k) k^(-(P - 1) / 2) (d + S / k)^(-(d + P - 1) / 2),

    and has Student's t with d + P - 1 degrees of freedom and squared scale V_A k (d + S / k) / (d + P - 1). The
    interval holds 95 % of their mixture. A posterior does not depend on the rule by which passes were added
    (`needs_pass`), so far as its prior is right. One pass tells nothing of tau, which is 0 there: its interval
    is one of this sitting.

    With `noise_model`, what other networks of the session have told is the prior: g is theirs, V_A and d are this
    network's and theirs together (Smyth 2004), and so is p(k). Then a row is not called precise because its few
    samples happen to be alike.

    Args:
        passes: samples in ns, in order, one list per pass.
        trim: share cut at each end.
        scatter: of the session, where it is known.

    Raises:
        ValueError: without passes, or when one is empty.
    """
    if not passes or not all(passes):
        raise ValueError("a summary needs at least one pass, and at least one sample in each")
    samples = [sample for one in passes for sample in one]
    latency = trimmed_mean(samples, trim)
    correlation = autocorrelation(passes, trim)
    between = between_stderr(passes, trim) if len(passes) > 1 else None
    within, freedom = _within(
        passes, trim, latency, noise_model.correlation if noise_model else correlation, noise_model
    )
    if between is not None and all(min(one) == max(one) for one in passes):  # there may be one sample in each
        half = between * t_quantile(0.5 + CONFIDENCE / 2, len(passes) - 1)
    else:
        half = _half_width(within, freedom, between, len(passes), noise_model.effects if noise_model else EFFECT_PRIORS)
    return Summary(
        latency_ms=latency / _NS_PER_MS,
        stderr_ms=half / NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) / _NS_PER_MS,
        low_ms=(latency - half) / _NS_PER_MS,
        high_ms=(latency + half) / _NS_PER_MS,
        passes=len(passes),
        samples=len(samples),
        autocorrelation=correlation,
    )


def _within(
    passes: Sequence[Sequence[int]], trim: float, latency: float, correlation: float, noise_model: NoiseModel | None
) -> tuple[float, float]:
    """The standard error by the samples' scatter within passes, and its degrees of freedom."""
    samples = [sample for one in passes for sample in one]
    count, length = len(samples), round(len(samples) / len(passes))
    inflation = max(ar1_inflation(correlation, length), fmean(variance_inflation(one, trim) for one in passes))
    if noise_model is None:
        freedom = (count - 2 * _cut(count, trim) - 1) / max(1.0, inflation) ** 1.5
        return winsorised_stderr(samples, trim) * math.sqrt(inflation), max(1.0, freedom)
    own = within_passes(passes, trim)
    variance = own.variance * (length - 1) / max(1.0, length - inflation)
    freedom = own.freedom / max(1.0, inflation)
    total = max(1.0, freedom + noise_model.freedom)
    variance = (freedom * variance + noise_model.freedom * noise_model.variance) / total
    return latency * math.sqrt(variance * inflation / count), total


def _half_width(within: float, freedom: float, between: float | None, passes: int, effects: Sequence[float]) -> float:
    """Half the 95 % interval's width: see `summarise`."""
    if between is None:
        return within * t_quantile(0.5 + CONFIDENCE / 2, max(1, round(freedom)))
    if within == 0:  # most samples are equal
        return between * t_quantile(0.5 + CONFIDENCE / 2, passes - 1)
    excess = (passes - 1) * (between / within) ** 2
    total = freedom + passes - 1
    logs, scales = [], []
    for prior, effect in zip(effects, EFFECTS, strict=True):
        k = 1 + effect**2
        rest = freedom + excess / k
        logs.append(math.log(max(prior, 1e-300)) - (passes - 1) / 2 * math.log(k) - total / 2 * math.log(rest))
        scales.append(within * math.sqrt(k * rest / total))
    most = max(logs)
    weights = [math.exp(log - most) for log in logs]
    whole = sum(weights)
    kept = [(weight / whole, scale) for weight, scale in zip(weights, scales, strict=True) if weight > 1e-5 * whole]
    share, scale = (np.array(column) for column in zip(*kept, strict=True))
    low, high = scale.min(), 15 * scale.max()
    while high - low > 2e-4 * high:
        middle = (low + high) / 2
        if share @ (1 - 2 * special.stdtr(total, -middle / scale)) < CONFIDENCE:
            low = middle
        else:
            high = middle
    return float(low + high) / 2


def needs_pass(
    passes: Sequence[Sequence[int]], policy: TimingPolicy, timed_s: float, noise_model: NoiseModel | None = None
) -> bool:
    """Whether one more pass of a network is due: below the floor, or below the cap while its interval is too wide.

    Args:
        passes: samples in ns so far, in order, one list per pass; none are needed.
        timed_s: seconds of warm-up and samples that went into them.
        scatter: of the session, where it is known.
    """
    if len(passes) < policy.passes:
        return True
    if len(passes) >= policy.most_passes or not policy.precision or (policy.max_s and timed_s >= policy.max_s):
        return False
    return summarise(passes, policy.trim, noise_model).relative_half_width > policy.precision


def t_quantile(p: float, degrees_of_freedom: float) -> float:
    """Return the `p` quantile of Student's t distribution."""
    if not 0 < p < 1 or degrees_of_freedom < 1:
        raise ValueError("a quantile of t needs 0 < p < 1 and at least one degree of freedom")
    return float(special.stdtrit(degrees_of_freedom, p))


def _cut(count: int, trim: float) -> int:
    """How many samples are cut at each end."""
    if not 0 <= trim < 0.5:
        raise ValueError(f"trim is the share cut at each end, in [0, 0.5), not {trim}")
    if count < 1:
        raise ValueError("there are no samples")
    # A share such as .1 is a little more than a tenth in binary, .3 a little less: 10 samples must lose 3.
    return math.floor(trim * count + 1e-9)


def winsorise(samples: Sequence[float], trim: float) -> list[float]:
    """The samples in their order, those that `trimmed_mean` cuts replaced by the nearest that it keeps."""
    ordered = sorted(samples)
    cut = _cut(len(ordered), trim)
    low, high = ordered[cut], ordered[len(ordered) - cut - 1]
    return [min(max(value, low), high) for value in samples]


def _variance(values: Sequence[float]) -> float:
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)
