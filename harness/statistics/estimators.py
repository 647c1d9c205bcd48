"""Estimators of a latency and its error bar from raw samples: pure functions of recorded numbers.

Samples are nanoseconds in their order of measurement; a pass is one short run of samples, and a network is measured in
several passes spread out in time.

Sources:
    Tukey and McLaughlin (1963), Sankhya A 25, 331-352: the trimmed mean and its Winsorised standard error.
    Yuen (1974), Biometrika 61, 165-170: its degrees of freedom, h - 1.
    Kendall (1954), Biometrika 41, 403-404: the bias of autocorrelations.
    Gelman (2006), Bayesian Analysis 1, 515-534: half-Cauchy priors where groups are few.
    Wallace (1959), Ann. Math. Stat. 30, 1121-1130: a normal approximation of Student's t.
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
from numpy.typing import NDArray
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
"""Batches of the batch means: enough for a usable variance."""
MIN_BATCH = 20
"""Fewest samples in a batch: it has to outlast the correlation of successive samples."""
NO_EFFECT = 0.7
"""Prior probability that passes differ by no more than their samples explain."""
USUAL_EFFECT = 3.0
"""Scale of the half-Cauchy prior of how much more they scatter otherwise, in standard errors of one pass."""
EFFECTS = (0.0, *(10 ** (k / 4 - 2) for k in range(25)))
"""Grid of tau, the standard deviation between passes in standard errors of one pass."""
_SHARES = [effect / (USUAL_EFFECT**2 + effect**2) for effect in EFFECTS]
EFFECT_PRIORS = (NO_EFFECT, *((1 - NO_EFFECT) * share / sum(_SHARES) for share in _SHARES[1:]))
"""Prior probability of each of `EFFECTS`."""
LEAST_CORRELATION, MOST_CORRELATION = -0.3, 0.95
_NS_PER_MS = 1e6


@dataclass(frozen=True)
class NoiseModel:
    """A noise model: the scatter of networks on a device in a session, estimated from many (`pooled_variance`)."""

    variance: float
    """Variance of one Winsorised sample over the latency squared. If samples were independent, the squared relative
    standard error of n of them would be this over n."""
    freedom: float
    """Degrees of freedom that this knowledge is worth for one network: many if all networks scatter alike."""
    correlation: float
    """Correlation of successive samples (lag 1)."""
    effects: tuple[float, ...]
    """Probability of each of `EFFECTS`."""


class Within(NamedTuple):
    """The scatter of one network's samples within its passes."""

    variance: float
    """As `NoiseModel.variance`, but too small by the factor (n - g) / (n - 1), where g is the variance inflation and n
    the number of samples in a pass."""
    freedom: float
    """Degrees of freedom of `variance`."""
    squares: float
    """Sum of squared deviations of the Winsorised samples from their pass's mean, over the latency squared."""
    products: float
    """Sum of products of successive such deviations, over the latency squared."""


@dataclass(frozen=True)
class Summary:
    """The latency of one network and its error bar, from the samples of all passes."""

    latency_ms: float
    """Trimmed mean of the samples of all passes together."""
    stderr_ms: float
    """Standard error of `latency_ms`, such that a normal distribution with it has an interval of the same width. 0 for
    a single sample, and for samples that are all equal, which say nothing about it."""
    low_ms: float
    """Lower end of the 95 % confidence interval."""
    high_ms: float
    """Upper end of the 95 % confidence interval."""
    passes: int
    samples: int
    """Samples of all passes together."""
    autocorrelation: float
    """Correlation of successive samples of a pass (lag 1), between -.3 and .95."""

    @property
    def relative_half_width(self) -> float:
        """Half the interval's width, as a share of the latency."""
        return (self.high_ms - self.low_ms) / 2 / self.latency_ms if self.latency_ms else math.inf


def trimmed_mean(samples: Sequence[float], trim: float) -> float:
    """Return the mean without the `floor(trim * n)` smallest and as many of the largest of the n samples.

    Args:
        samples: at least one, in any unit and order.
        trim: share cut at each end, in [0, 0.5).
    """
    ordered = sorted(samples)
    cut = _cut(len(ordered), trim)
    return fmean(ordered[cut : len(ordered) - cut])


def winsorised_stderr(samples: Sequence[float], trim: float) -> float:
    """Return the standard error of `trimmed_mean` for independent samples: sqrt(SSD_w / (h (h - 1))).

    SSD_w is the sum of squared deviations of the Winsorised samples (the cut ones replaced by the nearest
    that are kept), h the number of samples kept. It is 0 if h < 2.
    """
    values = winsorise(samples, trim)
    kept = len(values) - 2 * _cut(len(values), trim)
    if kept < 2:
        return 0.0
    mean = fmean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (kept * (kept - 1)))


def between_stderr(passes: Sequence[Sequence[float]], trim: float) -> float:
    """Return the standard error of the trimmed mean of all samples, from at least two passes as independent units.

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
    """Return the correlation of successive samples within passes, around the mean of all: one figure for all passes.

    Samples are Winsorised, so that a burst is no correlation. The estimate from n samples is low by about
    (1 + 4 r) / n (Kendall 1954), which is corrected; it stays between -.3 and .95. It is 0 for fewer than ten samples,
    which say nothing.
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
    """Return how many times larger the variance of a mean of successive samples is than that of independent ones.

    It is 1 + 2 sum_k (1 - k / n) r^k for n = `count` samples of an AR(1) process with lag-1 correlation r.
    """
    r, n = correlation, count
    return (1 + r) / (1 - r) - 2 * r * (1 - r**n) / (n * (1 - r) ** 2)


def variance_inflation(samples: Sequence[float], trim: float) -> float:
    """Return the same ratio for one long pass, whatever its correlations are, by batch means.

    The Winsorised samples, in order, are cut into `BATCHES` equal batches of m: m Var(batch means) /
    Var(samples) estimates 1 + 2 sum(rho_k). It is 0 if there are too few samples for that.
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
    """Return how a network's samples scatter within its passes; a `NoiseModel` is estimated from many of these."""
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
    """Return the latency and its error bar from the samples of all passes.

    The latency is the trimmed mean of all samples together, so that a burst which spoils one pass of five
    loses most of its weight (for one pass it is the mean that HELP computes).

    The interval combines two errors: that of the samples within passes, inflated by g for their autocorrelation (V_A,
    with d = (h - 1) / g^1.5 degrees of freedom, since g is an estimate too), and that of the passes, which may differ
    by more than that (V_B of `between_stderr`, P - 1 degrees of freedom). Which of them holds is not known, and V_B
    alone would reward luck: three passes that agree by chance would end the measurement. So the interval is averaged
    over the excess of the passes' variance over the samples', tau^2, where tau, in standard errors of one pass, is 0 or
    half-Cauchy (Gelman 2006): with k = 1 + tau^2, S = (P - 1) V_B / V_A, and 1/v as the prior of the samples' variance
    v, each k has the weight

        p(k) k^(-(P - 1) / 2) (d + S / k)^(-(d + P - 1) / 2),

    and its distribution is Student's t with d + P - 1 degrees of freedom and squared scale V_A k (d + S / k) / (d + P -
    1). The interval holds 95 % of their mixture. A posterior does not depend on the rule by which passes were added
    (`needs_pass`), so far as its prior is right. One pass says nothing about tau, which is 0 then: the interval holds
    for that one stretch of time only.

    With `noise_model`, the other networks of the session give the prior: g is theirs, V_A and d are this network's and
    theirs together (Smyth 2004), and p(k) is theirs. Then a row is not called precise because its few samples happen
    to be alike.

    Args:
        passes: samples in ns, in order, one list per pass.
        trim: share cut at each end.
        noise_model: how the networks of the session scatter, if it is known.

    Raises:
        ValueError: if there are no passes, or one is empty.
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
    """Return the standard error by the samples' scatter within passes, in ns, and its degrees of freedom."""
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
    """Return half the 95 % interval's width, in the unit of `within`; see `summarise`."""
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
        if share @ _two_sided_t(middle / scale, total) < CONFIDENCE:
            low = middle
        else:
            high = middle
    return float(low + high) / 2


def _two_sided_t(t: NDArray[np.float64], freedom: float) -> NDArray[np.float64]:
    """Return P(|T| < t) for any degrees of freedom, to about .001 from three on (Wallace 1959).

    It stays although `scipy.special.stdtr` is exact: error bars would change by up to half a percent, and so would the
    networks that get another pass, for no gain that anybody could see.
    """
    z = (8 * freedom + 1) / (8 * freedom + 3) * np.sqrt(freedom * np.log1p(t * t / freedom))
    return np.asarray(special.erf(z / math.sqrt(2)))


def needs_pass(
    passes: Sequence[Sequence[int]], policy: TimingPolicy, timed_s: float, noise_model: NoiseModel | None = None
) -> bool:
    """Return whether a network needs one more pass.

    It does while it has fewer passes than the policy's least, and then until its interval is narrow enough, it has the
    policy's most passes, or its seconds are spent.

    Args:
        passes: samples in ns so far, in order, one list per pass; may be empty.
        policy: the timing policy.
        timed_s: seconds of warm-up and samples that went into these passes.
        noise_model: how the networks of the session scatter, if it is known.
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
    """Return how many samples are cut at each end."""
    if not 0 <= trim < 0.5:
        raise ValueError(f"trim is the share cut at each end, in [0, 0.5), not {trim}")
    if count < 1:
        raise ValueError("there are no samples")
    # A share such as .1 is a little more than a tenth in binary, .3 a little less: 10 samples must lose 3.
    return math.floor(trim * count + 1e-9)


def winsorise(samples: Sequence[float], trim: float) -> list[float]:
    """Return the samples in their order; those that `trimmed_mean` cuts are replaced by the nearest that it keeps."""
    ordered = sorted(samples)
    cut = _cut(len(ordered), trim)
    low, high = ordered[cut], ordered[len(ordered) - cut - 1]
    return [min(max(value, low), high) for value in samples]


def _variance(values: Sequence[float]) -> float:
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)
