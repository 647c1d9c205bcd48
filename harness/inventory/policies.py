"""The user's own timing policies, defined under `policies:` in inventory.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from typing import Annotated, Literal

from pydantic import Field

from latlab.harness.timing_policy import PRESETS, PolicyError, TimingPolicy
from latlab.harness.transports.config import Problem, Strict

__all__ = ["PolicyConfig", "policy_of"]

Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
REQUIRED = tuple(field.name for field in fields(TimingPolicy) if field.default is MISSING and field.name != "name")
"""The fields that a policy without a base must have."""


class PolicyConfig(Strict):
    """A timing policy's fields in the file; `latlab.harness.timing_policy.TimingPolicy` explains them in full."""

    base: str | None = Field(
        default=None,
        description="A preset that provides the fields that are not given here",
        json_schema_extra={"enum": [*PRESETS, None]},
    )
    warmup: Whole | None = Field(default=None, description="Least number of runs discarded at the start of each pass")
    runs: Whole | None = Field(default=None, description="Least number of samples kept in each pass")
    trim: Number | None = Field(default=None, description="Share of a network's samples cut at each end, below 0.5")
    passes: Whole | None = Field(
        default=None, description="Least number of passes of a network, with other networks in between"
    )
    spread: Whole | None = Field(default=None, description="Rounds between two passes of the same network")
    max_passes: Whole | None = Field(
        default=None, description="Passes are added until the interval is narrow, up to this number; 0: none is added"
    )
    precision: Number | None = Field(
        default=None, description="Passes are added until half the 95 % interval is this share of the latency"
    )
    max_s: Number | None = Field(
        default=None, description="Seconds of timing after which no pass is added; 0: no limit"
    )
    max_warmup: Whole | None = Field(
        default=None, description="Warm-up goes on until its halves agree, up to this many runs; 0: exactly `warmup`"
    )
    warmup_s: Number | None = Field(default=None, description="Least seconds that the warm-up of a pass lasts")
    pass_s: Number | None = Field(default=None, description="Least seconds that the samples of a pass last")
    max_pass_s: Number | None = Field(
        default=None, description="Seconds after which a pass ends even with fewer than `runs`; 0: no limit"
    )
    max_runs: Whole | None = Field(
        default=None, description="Most samples of a pass if `pass_s` or `stop` require more than `runs`; 0: 100,000"
    )
    stop: Literal["", "stdrel"] | None = Field(default=None, description="Rule that ends a pass; stdrel is NVBench's")
    overheads: Whole | None = Field(
        default=None, description="Calls shorter than this many readings of the clock are timed in blocks; 0: none"
    )
    anchors: Annotated[bool, Field(strict=True)] | None = Field(
        default=None, description="Whether small fixed networks are timed in between, to remove drift"
    )

    def problems(self, name: str) -> Iterator[Problem]:
        """Yield what is wrong although the types are right: where, and how."""
        if name in PRESETS:
            yield (), f"{name} is a policy of latlab's own: name this one otherwise, and give it `base: {name}`"
        if self.base is not None and self.base not in PRESETS:
            yield ("base",), f"choose one of: {', '.join(PRESETS)}, not {self.base!r:.60}"
            return
        missing = [field for field in REQUIRED if self.base is None and getattr(self, field) is None]
        for field in missing:
            yield (field,), "it is missing (or let a preset give it: `base: default`)"
        if not missing:
            try:
                policy_of(name, self)
            except PolicyError as error:
                yield (error.field,), f"{error.wanted}, not {error.value!r:.60}"


def policy_of(name: str, config: PolicyConfig) -> TimingPolicy:
    """Return the timing policy with the given fields; the base provides the others.

    Raises:
        PolicyError: a field's value is out of bounds.
    """
    given = config.model_dump(exclude={"base"}, exclude_none=True)
    if config.base is None:
        return TimingPolicy(name, **given)
    return replace(PRESETS[config.base], name=name, **given)
