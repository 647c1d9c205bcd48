"""True latencies: from the roofline, and from tables."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from simulated_devices import NETWORK

from latlab.agents.protocol.errors import AgentError
from latlab.harness.errors import BadInputError
from latlab.harness.transports.simulated.config import Cost, SimulatedDevice
from latlab.harness.transports.simulated.device import simulated_device
from latlab.harness.transports.simulated.roofline import LAYER_KINDS, Roofline, by_size, network_cost
from latlab.search_spaces import get, names


def truth_ms(network: str, **fields: object) -> float:
    return simulated_device("sim", SimulatedDevice.model_validate({"kind": "ideal", **fields})).true_latency_ms(network)


@pytest.mark.parametrize("space_name", names())
def test_layers_of_every_space_are_counted(space_name: str) -> None:
    space = get(space_name)
    arch = space.random(Random(1))
    layers = space.layers(arch, live=True)
    cost = network_cost(f"{space_name}/{arch}")
    assert cost is not None
    assert cost.flops.sum() >= 2 * sum(layer.macs for layer in layers)
    assert (cost.moved_bytes + cost.weight_bytes).sum() == sum(layer.bytes for layer in layers)
    assert cost.params == sum(layer.params for layer in layers)
    assert cost.layer_kinds == {layer.kind for layer in layers} <= set(LAYER_KINDS)
    assert cost.takes([3, *space.input_shape(arch)])
    assert not cost.takes([1, 3, 7, 7])


def test_the_roofline() -> None:
    """Bound by computing, by memory, by overhead: the sums that one works out by hand."""
    cost = network_cost(NETWORK)
    assert cost is not None
    plain = np.isin(cost.kinds, [LAYER_KINDS.index(kind) for kind in ("linear", "depthwise", "grouped")], invert=True)
    flops = (cost.flops / np.where(plain, 1.0, 0.6)).sum()  # the linear layer reaches 60 % of the peak
    fast = {"peak_gflops": 1e6, "memory_gb_s": 1e6, "overhead_us": 0.0}
    assert Roofline(Cost(**{**fast, "peak_gflops": 2.0})).latency_ms(cost) == pytest.approx(flops / 2e6, rel=1e-3)
    moved = (cost.moved_bytes + cost.weight_bytes).sum()
    assert Roofline(Cost(**{**fast, "memory_gb_s": 0.5})).latency_ms(cost) == pytest.approx(moved / 5e5, rel=1e-3)
    slow_start = Roofline(Cost(**{**fast, "overhead_us": 1e5})).latency_ms(cost)
    assert slow_start == pytest.approx(100 * len(cost.kinds), rel=1e-3)


def test_batches_and_threads() -> None:
    cost = network_cost(NETWORK)
    assert cost is not None
    computing = Roofline(Cost(peak_gflops=1.0, memory_gb_s=1e6, overhead_us=0))
    one = computing.latency_ms(cost)
    assert computing.latency_ms(cost, batch_size=8) == pytest.approx(8 * one, rel=1e-3)
    assert one / 4 < computing.latency_ms(cost, threads=4) < one / 2


def test_the_same_graph_takes_the_same_time(tmp_path: Path) -> None:
    """Spellings that differ in dead edges only, with a cost model and with a table of one of them."""
    dead = "nasbench201/|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"
    alive = dead.replace("nor_conv_3x3~0", "none~0")
    space = get("nasbench201")
    archs = [space.parse(network.partition("/")[2]) for network in (dead, alive)]
    assert archs[0] != archs[1]
    assert space.canonical(archs[0]) == space.canonical(archs[1])
    assert truth_ms(dead) == truth_ms(alive) < truth_ms(NETWORK)
    path = tmp_path / "table.csv"
    pd.DataFrame({"arch": [arch.text for arch in archs], "latency_ms": [1.0, 2.0]}).to_csv(path)
    assert truth_ms(dead, table=path) == truth_ms(alive, table=path) == 2.0


def test_devices_of_a_kind_differ_by_seed_and_by_name() -> None:
    config = SimulatedDevice(cost=Cost(variation=0.2))
    latencies = {simulated_device(name, config).true_latency_ms(NETWORK) for name in ("a", "b")}
    latencies.add(simulated_device("a", SimulatedDevice(cost=Cost(variation=0.2), seed=1)).true_latency_ms(NETWORK))
    assert len(latencies) == 3
    assert max(latencies) < 2 * min(latencies)
    again = simulated_device("a", SimulatedDevice(cost=Cost(variation=0.2))).true_latency_ms(NETWORK)
    assert again == simulated_device("a", config).true_latency_ms(NETWORK)


def test_a_model_of_the_users_own_goes_by_its_size() -> None:
    device = simulated_device("sim", SimulatedDevice(kind="ideal"))
    for text in ("", "my net.onnx", "nasbench201/not an architecture", "no-such-space/1_2"):
        ms = device.true_latency_ms(text, size_bytes=4_000_000)
        assert ms == pytest.approx(1e6 * 200 / 10e9 * 1e3 + 0.005)
    assert by_size(4_000_000).params == 1_000_000


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    text = NETWORK.partition("/")[2]
    other = text.replace("nor_conv_3x3", "none")
    frame = pd.DataFrame({"arch": [text, other], "pi": [12.5, np.nan], "phone": [3.5, 2.5]})
    frame.to_csv(path) if suffix == ".csv" else frame.to_parquet(path)
    assert truth_ms(NETWORK, table=path, column="pi") == 12.5
    assert truth_ms(NETWORK, table=path, column="phone") == 3.5
    with pytest.raises(AgentError, match="no latency") as caught:
        truth_ms(f"nasbench201/{other}", table=path, column="pi")
    assert caught.value.kind == "unsupported_op"
    for unknown in (NETWORK.replace("nor_conv_1x1", "avg_pool_3x3"), "my net.onnx"):
        with pytest.raises(AgentError, match=r"is not in .*table") as caught:
            truth_ms(unknown, table=path, column="pi")
        assert caught.value.kind == "bad_request"
    with pytest.raises(BadInputError, match="several columns") as no_column:
        truth_ms(NETWORK, table=path)
    assert "pi, phone" in str(no_column.value.hint)
    with pytest.raises(BadInputError, match="no column 'tpu'"):
        truth_ms(NETWORK, table=path, column="tpu")


def test_a_table_in_the_layout_of_published_ones(tmp_path: Path) -> None:
    for space_name, fields in (
        ("fbnet", {"ops": [[7, 8, 1, 8, 4, 8, 8, 8, 7, 4, 1, 4, 7, 3, 2, 0, 1, 2, 3, 4, 5, 6]]}),
        ("ofa-mobilenetv3", {"ks": [[3, 5] * 10], "e": [[4, 6] * 10], "d": [[2, 3, 4, 2, 3]], "r": [160]}),
    ):
        path = tmp_path / f"{space_name}.parquet"
        pd.DataFrame({**fields, "raspi4": [80.0]}).to_parquet(path)
        genes = fields["ops"][0] if "ops" in fields else [160, 2, 3, 4, 2, 3, *[3, 5] * 10, *[4, 6] * 10]
        arch = get(space_name).from_genes(genes)
        assert truth_ms(f"{space_name}/{arch}", table=path) == 80.0


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"", "cannot read the table"), (b"a,b\n1,2\n", "which networks")],
)
def test_tables_that_are_none(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInputError, match=words):
        truth_ms(NETWORK, table=path, column="b")
