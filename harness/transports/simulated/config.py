"""The inventory's entry of a simulated device."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from latlab.harness.transports.config import DeviceConfig, File, Strict
from latlab.harness.transports.simulated.presets import KINDS

__all__ = [
    "Bursts",
    "Cost",
    "FaultKind",
    "Faults",
    "Heating",
    "LayerKind",
    "Noise",
    "Outliers",
    "ScheduledFault",
    "SimulatedDevice",
    "SlowClock",
]

Share = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=1, le=1000)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
FaultKind = Literal["hang", "crash", "disconnect", "refuse", "garbage", "lease_lost", "corrupt", "no_space"]
# fmt: off
LayerKind = Literal[
    "conv", "pointwise", "grouped", "depthwise", "linear", "batchnorm", "pool", "add", "relu", "hswish", "hsigmoid",
    "mul", "zero", "shuffle", "mean", "matmul", "softmax", "layernorm", "concat", "embedding",
    "argmax", "lstm", "gelu", "sigmoid", "resize", "other",
]
# fmt: on
"""Values of `latlab.search_spaces.layers.Layer.kind`; `other` stands for all further kinds of a user's own space."""
Verb = Literal["hello", "put", "load", "time", "profile", "unload", "telemetry"]


class Cost(Strict):
    """A roofline: each layer takes the longer of its computing and its memory traffic, plus a cost to start it."""

    peak_gflops: Positive = Field(default=10.0, description="Billions of operations per second of one thread")
    memory_gb_s: Positive = Field(default=5.0, description="Billions of bytes a second to and from memory")
    overhead_us: float = Field(default=5.0, ge=0, le=1e6, description="Microseconds to start a layer")
    variation: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Spread between devices of a kind (by seed) in the speed at each kind of layer: the standard "
        "deviation of its logarithm",
    )


class SlowClock(Strict):
    """A clock that switches between two speeds at random, so that latencies have two modes."""

    share: float = Field(gt=0, lt=1, description="Share of the time in which the clock is slow")
    factor: Factor = Field(default=1.3, description="Factor by which runs take longer at the slow clock")
    dwell_s: Positive = Field(default=2.0, description="Mean seconds for which the clock stays slow")


class Outliers(Strict):
    """Single runs that take much longer."""

    probability: Share
    factor: Factor = 3.0


class Bursts(Strict):
    """Another program that uses the device now and then."""

    per_minute: Positive
    seconds: Positive = Field(default=1.0, description="Mean length of a burst in seconds")
    factor: Factor = Field(default=1.5, description="Factor by which runs take longer during a burst")


class Noise(Strict):
    """The differences between runs of a network. Without any of them, each run takes exactly the true latency."""

    sigma: float = Field(
        default=0.0, ge=0, le=2, description="Standard deviation of a run's logarithm; its mean is the true latency"
    )
    autocorrelation: float = Field(
        default=0.0, ge=0, lt=1, description="Correlation of the logarithms of one run and the next (AR(1))"
    )
    drift_percent_per_hour: float = Field(
        default=0.0, ge=-50, le=1000, description="Percent by which runs take longer per hour of the device's clock"
    )
    slow_clock: SlowClock | None = None
    outliers: Outliers | None = None
    bursts: Bursts | None = None


class Heating(Strict):
    """One thermal mass, which warms up while networks run and cools down in between; a hot device lowers its clock."""

    watts: Positive = Field(default=4.0, description="Power in watts while a network runs at full clock")
    ambient_c: float = Field(default=40.0, ge=-50, le=150, description="Temperature of the device at rest")
    c_per_watt: Positive = Field(default=8.0, description="Degrees above ambient per watt in equilibrium")
    time_constant_s: Positive = Field(default=60.0, description="Seconds in which 63 % of a change have happened")
    throttle_c: float = Field(default=80.0, ge=-50, le=250, description="Temperature at which the clock falls")
    throttle_factor: Factor = Field(default=1.5, description="Factor by which runs then take longer (and heat less)")
    hysteresis_c: Positive = Field(default=3.0, description="Degrees to cool down before the clock rises again")


class ScheduledFault(Strict):
    """A fault that happens once, at a certain request."""

    kind: FaultKind = Field(
        description="hang: no reply, ever; crash: the worker dies; disconnect: the link is cut; refuse: the link is "
        "cut and every later login refused; garbage: a reply that breaks the protocol; lease_lost: another controller "
        "takes the device over; corrupt: the model files on the device are damaged; no_space: a file does not fit"
    )
    after_requests: int = Field(
        default=0, ge=0, description="Requests before it that succeed: loads and timings, or those of `verb`"
    )
    verb: Verb | None = Field(default=None, description="Count and hit requests of this verb only")
    connects: int = Field(
        default=0, ge=0, description="After a disconnect: attempts to connect that fail before one succeeds"
    )


class Faults(Strict):
    """Faults of the device. Probabilities are per request that loads or times a network."""

    hangs: Share = Field(default=0.0, description="Probability that there is never a reply")
    crashes: Share = Field(default=0.0, description="Probability that the worker dies")
    disconnects: Share = Field(default=0.0, description="Probability that the link is cut; reconnecting then works")
    unsupported: Share = Field(default=0.0, description="Share of networks with an operator that the runtime lacks")
    unsupported_kinds: list[LayerKind] = Field(
        default_factory=list, description="Kinds of layers that the runtime lacks, such as `hswish` or `shuffle`"
    )
    max_params: int | None = Field(default=None, ge=0, description="Networks with more parameters do not fit in memory")
    schedule: list[ScheduledFault] = Field(default_factory=list)


class SimulatedDevice(DeviceConfig):
    """A device that does not exist, for trying latlab and for provoking the faults of real devices."""

    transport_factory: ClassVar[str] = "latlab.harness.transports.simulated.transport:SimulatedTransport.from_config"
    transport: Literal["simulated"] = "simulated"
    kind: Literal["ideal", "pi4", "phone", "gpu", "server"] = Field(
        default="pi4", description="Preset for what `cost`, `noise` and `heating` leave out; `ideal` has no noise"
    )
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="Seed of all randomness, with the device's name")
    pace: float = Field(
        default=0.0, ge=0, le=1000, description="Real time per simulated time; 0: every request is answered at once"
    )
    rest_ms: float = Field(
        default=5.0, ge=0, le=1e6, description="Milliseconds of rest before each timing, on the device's own clock"
    )
    cost: Cost = Field(default_factory=Cost, description="Model of the true latencies, unless `table` is given")
    table: File | None = Field(
        default=None, description="True latencies from a table: Parquet or CSV with a column `arch`, or HELP's columns"
    )
    column: str | None = Field(default=None, description="Column of the table, in milliseconds; default: its only one")
    noise: Noise = Field(default_factory=Noise)
    heating: Heating | None = Field(default=None, description="Thermal model; null: the device never gets warmer")
    faults: Faults = Field(default_factory=Faults)
    work: File | None = Field(default=None, description="Folder for model files; default: only their hashes are kept")

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, data: Any) -> Any:
        kind = KINDS.get(str(data.get("kind", "pi4"))) if isinstance(data, dict) else None
        if kind is None:
            return data
        filled = dict(data)
        for group in ("cost", "noise", "heating"):
            usual, given = getattr(kind, group), data.get(group, {})
            if isinstance(given, dict) and (given or usual is not None):
                filled[group] = {**(usual or {}), **given}
        return filled

    @model_validator(mode="after")
    def _column_needs_a_table(self) -> SimulatedDevice:
        if self.column is not None and self.table is None:
            raise ValueError("`column` is a table's: name its file with `table`")
        return self

    @property
    def address(self) -> str:
        return self.kind
