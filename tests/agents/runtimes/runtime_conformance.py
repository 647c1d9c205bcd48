"""The conformance suite of runtimes. A new runtime inherits every test: it names itself and overrides the fixtures."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tiny_networks import Network

from latlab.agents import runtimes
from latlab.agents.execution.profiling import profile
from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.profile_request import ProfileRequest
from latlab.agents.runtimes import Session
from latlab.harness.transports.reply_validation import check_reply


class RuntimeConformance:
    runtime: ClassVar[str]
    provider: ClassVar[str]
    accelerator: ClassVar[str] = "cpu"

    @pytest.fixture
    def network(self, tmp_path: Path) -> Network:
        """A network with one input, in the runtime's format."""
        raise NotImplementedError

    @pytest.fixture
    def unsupported(self, tmp_path: Path) -> Path:
        """A well-formed file with an operator that the runtime does not know."""
        raise NotImplementedError

    @pytest.fixture
    def session(self, network: Network) -> Iterator[Session]:
        with self.open(network) as session:
            yield session

    def open(self, network: Network, threads: int = 1) -> Session:
        return runtimes.open(
            self.runtime, network.path, threads, self.accelerator, [runtimes.InputRequest(shape=network.input_shape)]
        )

    def test_outputs_equal_eager(self, session: Session, network: Network) -> None:
        for seed in range(3):
            inputs = session.random_inputs(seed)
            session.set_inputs(inputs)
            session.invoke()
            (output,) = session.outputs()
            np.testing.assert_allclose(output, network.eager(inputs[0]), atol=1e-5)

    def test_outputs_are_copies(self, session: Session) -> None:
        session.set_inputs(session.random_inputs(0))
        session.invoke()
        first = session.outputs()[0]
        kept = first.copy()
        session.set_inputs(session.random_inputs(1))
        session.invoke()
        np.testing.assert_array_equal(first, kept)
        assert np.abs(session.outputs()[0] - kept).max() > 0.1

    def test_a_profile_of_its_operators_or_a_reason_why_there_is_none(
        self, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "temporary"
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        session.set_inputs(session.random_inputs(0))
        session.invoke()
        (before,) = session.outputs()
        found: dict[str, Any] = {}
        failure = None
        try:
            found = profile(session, ProfileRequest(warmup=2, runs=5), 1 << 62)
        except AgentError as error:
            failure = error
        if failure is not None:
            assert (failure.kind, "profile" in failure.message) == ("bad_request", True)
        else:
            reply = json.dumps({"id": 1, "ok": True, **found}).encode()
            assert check_reply(reply, 1, "profile", {"warmup": 2, "runs": 5}) == found
            # No operator lasts longer than the inference that it is a part of.
            assert 0 <= sum(one["mean_ns"] for one in found["operators"]) <= max(found["samples_ns"])
            assert all(one["kind"] and one["provider"] for one in found["operators"])
        assert not [path for path in folder.rglob("*") if path.is_file()], "the profiler left a file"
        session.invoke()
        np.testing.assert_array_equal(session.outputs()[0], before)

    def test_random_inputs_depend_on_the_seed_alone(self, session: Session) -> None:
        first, again, other = (session.random_inputs(seed)[0] for seed in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 0.1
        assert abs(first.std() - 1) < 0.3

    def test_describes_itself(self, session: Session, network: Network) -> None:
        (spec,) = session.inputs
        assert spec.shape == network.input_shape
        assert spec.dtype == "float32"
        assert session.runtime == self.runtime
        assert session.provider == self.provider
        assert session.version == runtimes.find(self.runtime).version

    def test_running_yields_one_inference(self, session: Session) -> None:
        session.set_inputs(session.random_inputs(0))
        with session.running() as infer:
            infer()
            infer()

    def test_several_threads_compute_the_same(self, network: Network) -> None:
        with self.open(network, threads=2) as session:
            inputs = session.random_inputs(0)
            session.set_inputs(inputs)
            session.invoke()
            np.testing.assert_allclose(session.outputs()[0], network.eager(inputs[0]), atol=1e-5)

    def test_two_sessions_do_not_mix(self, session: Session, network: Network) -> None:
        session.set_inputs(session.random_inputs(0))
        with self.open(network) as other:
            other.set_inputs(other.random_inputs(1))
            session.invoke()
            other.invoke()
            assert np.abs(session.outputs()[0] - other.outputs()[0]).max() > 0.1

    def test_close_twice(self, network: Network) -> None:
        session = self.open(network)
        session.close()
        session.close()

    def test_rejects_inputs_of_another_shape_or_type(self, session: Session) -> None:
        (array,) = session.random_inputs(0)
        for wrong in (array[..., :-1], array.astype(np.float64), array[0]):
            with pytest.raises(AgentError) as caught:
                session.set_inputs([wrong])
            assert caught.value.kind == "bad_request"
        with pytest.raises(AgentError):
            session.set_inputs([array, array])

    def test_missing_file(self, tmp_path: Path) -> None:
        self.fails("bad_request", tmp_path / "nothing")

    def test_junk(self, tmp_path: Path) -> None:
        path = tmp_path / "junk"
        path.write_bytes(b"this is no network " * 99)
        self.fails("corrupt_artifact", path)

    def test_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "empty"
        path.touch()
        self.fails("corrupt_artifact", path)

    def test_half_a_file(self, network: Network) -> None:
        content = network.path.read_bytes()
        network.path.write_bytes(content[: len(content) // 2])
        self.fails("corrupt_artifact", network.path)

    def test_unsupported_operator(self, unsupported: Path) -> None:
        self.fails("unsupported_op", unsupported)

    def test_unknown_accelerator(self, network: Network) -> None:
        with pytest.raises(AgentError, match="no accelerator 'npu'") as caught:
            runtimes.open(
                self.runtime, network.path, accelerator="npu", inputs=[runtimes.InputRequest(shape=network.input_shape)]
            )
        assert caught.value.kind == "bad_request"

    def test_no_threads(self, network: Network) -> None:
        with pytest.raises(AgentError, match="threads"):
            self.open(network, threads=0)

    def test_not_installed(self, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtimes.util, "find_spec", lambda _: None)
        runtimes.find.cache_clear()
        try:
            with pytest.raises(AgentError, match="pip install") as caught:
                self.open(network)
        finally:
            runtimes.find.cache_clear()
        assert caught.value.kind == "runtime_missing"

    def fails(self, kind: str, path: Path) -> None:
        with pytest.raises(AgentError) as caught:
            runtimes.open(self.runtime, path, accelerator=self.accelerator)
        assert caught.value.kind == kind
        assert "\n" not in caught.value.message
