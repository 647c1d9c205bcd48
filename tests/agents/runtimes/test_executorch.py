"""Tests of the runtime executorch: the conformance suite, and what only this one does."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime_conformance import RuntimeConformance
from tiny_networks import CHANNELS, SIZE, Network, eager, eager_module, pte_file

from latlab.agents import runtimes
from latlab.agents.protocol.errors import AgentError
from latlab.agents.runtimes import Delegation
from latlab.agents.runtimes.pte_file import read_plan

pytestmark = [
    pytest.mark.slow,  # the first file takes ten seconds to write
    pytest.mark.skipif(
        util.find_spec("executorch") is None, reason="executorch is not installed: pip install 'latlab[executorch]'"
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # those of the exporter's code
]
IMAGE = (1, CHANNELS, SIZE, SIZE)


@pytest.fixture(scope="module")
def tiny() -> bytes:
    """The tiny network, all of which XNNPACK takes."""
    return pte_file(eager_module(), IMAGE)


@pytest.fixture(scope="module")
def mixed() -> bytes:
    """A network with an operator in its middle that XNNPACK does not take."""
    import torch
    from torch import nn

    class Mixed(nn.Module):
        def forward(self, x: Any, y: Any) -> Any:
            return torch.cumsum(x + y, 1) * y

    return pte_file(Mixed(), (2, 3), (2, 3))


class TestExecuTorch(RuntimeConformance):
    runtime = "executorch"
    provider = "XnnpackBackend"

    @pytest.fixture
    def network(self, tmp_path: Path, tiny: bytes) -> Network:
        path = tmp_path / "net.pte"
        path.write_bytes(tiny)
        return Network(path, IMAGE, eager)

    @pytest.fixture
    def unsupported(self, tmp_path: Path, mixed: bytes) -> Path:
        path = tmp_path / "unsupported.pte"
        path.write_bytes(mixed.replace(b"aten::cumsum", b"aten::nosuch"))
        return path

    def test_names_the_operator_that_it_lacks(self, unsupported: Path) -> None:
        with pytest.raises(AgentError, match=r"lacks aten::nosuch\.out"):
            runtimes.open("executorch", unsupported)

    def test_a_backend_that_this_build_lacks(self, tmp_path: Path, tiny: bytes) -> None:
        path = tmp_path / "net.pte"
        path.write_bytes(tiny.replace(b"XnnpackBackend", b"NoSuchBackend_"))
        with pytest.raises(AgentError, match="lacks NoSuchBackend_") as caught:
            runtimes.open("executorch", path)
        assert caught.value.kind == "unsupported_op"

    def test_all_of_it_on_xnnpack(self, network: Network) -> None:
        with self.open(network) as session:
            assert session.delegation == Delegation(operators=4, delegated=4, partitions=1)

    def test_a_part_on_its_own_kernels(self, tmp_path: Path, mixed: bytes) -> None:
        path = tmp_path / "mixed.pte"
        path.write_bytes(mixed)
        with runtimes.open("executorch", path) as session:
            assert session.delegation == Delegation(operators=3, delegated=2, partitions=2)
            x, y = session.random_inputs(0)
            session.set_inputs([x, y])
            session.invoke()
            np.testing.assert_allclose(session.outputs()[0], np.cumsum(x + y, 1) * y, atol=1e-5)

    def test_inputs_are_used_anew_in_each_call(self, session: Any, network: Network) -> None:
        """A program may write over its inputs; the outputs of the tenth call are still those of these inputs."""
        inputs = session.random_inputs(0)
        session.set_inputs(inputs)
        with session.running() as infer:
            for _ in range(10):
                last = infer()
        np.testing.assert_allclose(last[0].numpy(), network.eager(inputs[0]), atol=1e-5)

    def test_shape_that_contradicts_the_file(self, network: Network) -> None:
        with pytest.raises(AgentError, match="cannot run as 1x3x9x9"):
            runtimes.open("executorch", network.path, inputs=[runtimes.InputRequest(shape=(1, 3, 9, 9))])

    def test_numbers_of_threads_take_turns(self, network: Network) -> None:
        """The pool of threads is the process's; XNNPACK would go on with a pool that was freed."""
        bindings = __import__("executorch.extension.pybindings._C", fromlist=["_C"])
        with self.open(network, threads=2) as two, self.open(network, threads=1) as one:
            inputs = one.random_inputs(0)
            for session, threads in ((two, 2), (one, 1), (two, 2), (one, 1)):
                session.set_inputs(inputs)
                session.invoke()
                assert bindings._threadpool_get_thread_count() == threads
                np.testing.assert_allclose(session.outputs()[0], network.eager(inputs[0]), atol=1e-5)

    def test_a_method_of_another_name(self, tmp_path: Path, tiny: bytes) -> None:
        path = tmp_path / "net.pte"
        path.write_bytes(tiny.replace(b"forward", b"another"))
        with pytest.raises(AgentError, match="no method 'forward'") as caught:
            runtimes.open("executorch", path)
        assert caught.value.kind == "corrupt_artifact"


def test_every_truncated_file_is_refused_or_read(mixed: bytes) -> None:
    for length in range(0, len(mixed), 7):
        try:
            read_plan(mixed[:length], "forward")
        except ValueError:
            continue


@pytest.mark.parametrize("seed", range(5))
def test_files_with_wrong_bytes_are_refused_or_read(mixed: bytes, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(300):
        content = np.frombuffer(mixed, np.uint8).copy()
        content[rng.integers(0, len(content), 20)] = rng.integers(0, 256, 20)
        try:
            read_plan(content.tobytes(), "forward")
        except ValueError:
            continue
