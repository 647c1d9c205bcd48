"""What inventory.yaml says of a simulated device."""

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
    "mul", "zero", "shuffle", "mean", "matmul", "softmax", "layernorm", "concat", "other",
]
# fmt: on
"""`search_spaces.cost.Layer.kind`; `other` stands for what a user's own space has besides."""
Verb = Literal["hello", "put", "load", "time", "unload", "telemetry"]


class Cost(Strict):
    """A roofline: each layer takes the longer of computing and moving its bytes, plus what starting it costs."""

    peak_gflops: Positive = Field(default=10.0, description="Billions of operations a second, of one thread")
    memory_gb_s: Positive = Field(default=5.0, description="Billions of bytes a second to and from memory")
    overhead_us: float = Field(default=5.0, ge=0, le=1e6, description="Microseconds to start a layer")
    variation: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="How much devices of a kind differ (by seed) in how fast they compute each kind of layer: the "
        "standard deviation of the logarithm",
    )


class SlowClock(Strict):
    """A clock with two speeds, which it changes between now and then: latencies have two modes."""

    share: float = Field(gt=0, lt=1, description="Of the time, in which the clock is slow")
    factor: Factor = Field(default=1.3, description="By which runs take longer then")
    dwell_s: Positive = Field(default=2.0, description="Seconds for which it stays slow, on average")


class Outliers(Strict):
    """Single runs that take much longer."""

    probability: Share
    factor: Factor = 3.0


class Bursts(Strict):
    """A neighbour who uses the device now and then."""

    per_minute: Positive
    seconds: Positive = Field(default=1.0, description="How long a burst lasts, on average")
    factor: Factor = Field(default=1.5, description="By which runs take longer meanwhile")


class Noise(Strict):
    """What makes two runs of a network differ. Without any of it, each run takes exactly the true latency."""

    sigma: float = Field(
        default=0.0, ge=0, le=2, description="Standard deviation of a run's logarithm; the mean is the true latency"
    )
    autocorrelation: float = Field(
        default=0.0, ge=0, lt=1, description="Correlation of the logarithms of one run and the next (AR(1))"
    )
    drift_percent_per_hour: float = Field(
        default=0.0, ge=-50, le=1000, description="By which runs take longer for each hour that the device has run"
    )
    slow_clock: SlowClock | None = None
    outliers: Outliers | None = None
    bursts: Bursts | None = None


class Heating(Strict):
    """One thermal mass. It warms up while networks run and cools down in between; when too hot, the clock falls."""

    watts: Positive = Field(default=4.0, description="Turned into heat while a network runs at full clock")
    ambient_c: float = Field(default=40.0, ge=-50, le=150, description="Temperature of the device at rest")
    c_per_watt: Positive = Field(default=8.0, description="Degrees above that, per watt, in the long run")
    time_constant_s: Positive = Field(default=60.0, description="Seconds in which 63 % of the way there are gone")
    throttle_c: float = Field(default=80.0, ge=-50, le=250, description="Temperature at which the clock falls")
    throttle_factor: Factor = Field(default=1.5, description="By which runs take longer then (and heat less)")
    hysteresis_c: Positive = Field(default=3.0, description="Degrees to cool down before the clock rises again")


class ScheduledFault(Strict):
    """One fault at a certain request, then no more."""

    kind: FaultKind = Field(
        description="hang: no reply, ever; crash: the worker dies; disconnect: the link is cut; refuse: it is, and "
        "the device never lets us in again; garbage: a reply that is none; lease_lost: somebody else takes the "
        "device over; corrupt: the networks on the device are damaged; no_space: a file does not fit any more"
    )
    after_requests: int = Field(
        default=0, ge=0, description="Requests that go well before it: loads and timings, or those of `verb`"
    )
    verb: Verb | None = Field(default=None, description="Counts, and hits, requests of this verb only")
    connects: int = Field(
        default=0, ge=0, description="For a disconnect: attempts to connect again that fail before one succeeds"
    )


class Faults(Strict):
    """What goes wrong. Probabilities are per request that loads or times a network."""

    hangs: Share = Field(default=0.0, description="Probability that there is never a reply")
    crashes: Share = Field(default=0.0, description="Probability that the worker dies")
    disconnects: Share = Field(default=0.0, description="Probability that the link is cut; it can be had again at once")
    unsupported: Share = Field(default=0.0, description="Share of networks that have an operator the runtime lacks")
    unsupported_kinds: list[LayerKind] = Field(
        default_factory=list, description="Kinds of layers that the runtime lacks, such as `hswish` or `shuffle`"
    )
    max_params: int | None = Field(default=None, ge=0, description="Networks with more parameters do not fit in memory")
    schedule: list[ScheduledFault] = Field(default_factory=list)


class SimulatedDevice(DeviceConfig):
    """A device that does not exist: for trying latlab, and for provoking what real devices do now and then."""

    transport_factory: ClassVar[str] = "latlab.harness.transports.simulated.transport:SimulatedTransport.from_config"
    transport: Literal["simulated"] = "simulated"
    kind: Literal["ideal", "pi4", "phone", "gpu", "server"] = Field(
        default="pi4", description="Fills what `cost`, `noise` and `heating` leave out; `ideal` has no noise at all"
    )
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="Of all chance; with the device's name")
    pace: float = Field(
        default=0.0, ge=0, le=1000, description="1: takes the time that it says; 0: answers at once; 0.1: in a tenth"
    )
    rest_ms: float = Field(
        default=5.0, ge=0, le=1e6, description="Pause before each timing, on the device's own clock: it cools down"
    )
    cost: Cost = Field(default_factory=Cost, description="Where true latencies come from, unless `table` is given")
    table: File | None = Field(
        default=None, description="True latencies from a table: Parquet or CSV with a column `arch`, or HELP's columns"
    )
    column: str | None = Field(default=None, description="Of the table: milliseconds; default: its only such column")
    noise: Noise = Field(default_factory=Noise)
    heating: Heating | None = Field(default=None, description="null: it never gets warmer")
    faults: Faults = Field(default_factory=Faults)
    work: File | None = Field(default=None, description="Folder for networks; default: only their hashes are kept")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
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
    def _column_of_a_table(self) -> SimulatedDevice:
        if self.column is not None and self.table is None:
            raise ValueError("`column` is a table's: name its file with `table`")
        return self

    @property
    def address(self) -> str:
        return self.kind
