"""Tests of the exporters: the conformance suite for each, and what only one of them does."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import onnx
import pytest
import torch
from exporter_conformance import ExporterConformance
from network_spaces import NETWORK_SPACES
from operators import NETWORKS, SHAPE, UNSUPPORTED_BY_TFLITE, Net, network
from torch import nn

from latlab.agents import runtimes
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import Exporter, ExportError, UnknownFormatError, get_exporter, names
from latlab.search_spaces import get


class TestONNX(ExporterConformance):
    name = "onnx"

    def test_an_operator_that_onnx_lacks_is_named(self, path: Path) -> None:
        module = Net(lambda _, x: torch.special.i0(x))
        with pytest.raises(ExportError, match="i0") as failure:
            get_exporter("onnx").export(module, torch.zeros(1, *SHAPE), path)
        assert failure.value.kind == "unsupported_op"

    def test_batch_norms_are_folded_and_sizes_constant(self, path: Path) -> None:
        space = get("nasbench201")
        arch = space.parse("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|skip_connect~1|none~2|")
        histogram = get_exporter("onnx").export(space.build(arch), torch.zeros(4, 3, 32, 32), path)
        assert histogram["BatchNormalization"] == 1  # the last one, which no convolution precedes
        shape = onnx.load(path).graph.input[0].type.tensor_type.shape
        assert [dimension.dim_value for dimension in shape.dim] == [4, 3, 32, 32]


class TestTorchScript(ExporterConformance):
    name = "torchscript"

    @pytest.mark.filterwarnings("ignore:.*deprecated")
    @pytest.mark.parametrize("space", ["nasbench201", "fbnet"])
    def test_gives_the_graph_of_trace_and_freeze(self, path: Path, space: str) -> None:
        found = get(space)
        arch = found.sample(1, seed=2)[0]
        module = found.build(arch)
        example = torch.zeros(1, *found.input_shape(arch))
        histogram = get_exporter("torchscript").export(module, example, path)
        public = torch.jit.freeze(torch.jit.trace(module, (example,), check_trace=False))
        kinds = Counter(node.kind() for node in public.graph.nodes() if node.kind() != "prim::Constant")
        assert histogram == kinds


class TestTFLite(ExporterConformance):
    name = "tflite"

    @pytest.mark.parametrize("case", UNSUPPORTED_BY_TFLITE)
    def test_what_it_does_not_know_is_refused_by_name(self, path: Path, case: str) -> None:
        make, named = UNSUPPORTED_BY_TFLITE[case]
        with pytest.raises(ExportError, match=named) as failure:
            get_exporter("tflite").export(make().eval(), torch.zeros(1, *SHAPE), path)
        assert failure.value.kind == "unsupported_op"
        assert not path.exists()

    def test_training_mode_is_refused(self, path: Path) -> None:
        for layer in (nn.BatchNorm2d(8), nn.Dropout()):
            with pytest.raises(ExportError, match="training mode"):
                get_exporter("tflite").export(layer.train(), torch.zeros(1, *SHAPE), path)

    @pytest.mark.parametrize("as_written", [False, True])
    @pytest.mark.parametrize("space", NETWORK_SPACES)
    def test_xnnpack_takes_every_space_whole(self, path: Path, space: str, as_written: bool) -> None:
        found = get(space)
        arch = found.sample(1, seed=7)[0]
        module = found.build(arch, as_written=as_written)
        get_exporter("tflite").export(module, torch.zeros(1, *found.input_shape(arch)), path)
        with runtimes.open("tflite", path) as session:
            assert session.delegation is not None
            assert session.delegation.partitions == 1
            assert session.delegation.delegated == session.delegation.operators

    @pytest.mark.parametrize(
        ("operator", "expected"),
        [
            ("conv-nobias-bn-relu", {"CONV_2D": 1}),
            ("conv-stride2-odd", {"CONV_2D": 2}),
            ("conv-stride2-even", {"CONV_2D": 1, "PAD": 1}),
            ("conv-add-relu6", {"CONV_2D": 1}),
            ("conv-relu-read-twice", {"CONV_2D": 1, "RELU": 1, "SUB": 1}),
            ("add-pruned", {"ADD": 1, "RELU": 1}),
            ("avg-pool-same", {"AVERAGE_POOL_2D": 1}),
            ("depthwise", {"DEPTHWISE_CONV_2D": 1}),
            ("grouped-1x1", {"CONV_2D": 1}),
            ("channel-shuffle", {"RESHAPE": 2, "TRANSPOSE": 1}),
            ("hardswish", {"HARD_SWISH": 1}),
            ("linear-classifier", {"FULLY_CONNECTED": 1, "MEAN": 1, "RELU": 1, "RESHAPE": 1}),
            ("two-means", {"MEAN": 2}),
            ("identity-dropout", {"RELU": 1}),
        ],
    )
    def test_writes_no_operator_too_many(self, path: Path, operator: str, expected: dict[str, int]) -> None:
        histogram = get_exporter("tflite").export(network(operator), torch.zeros(1, *SHAPE), path)
        assert histogram == expected


@pytest.mark.slow
class TestExecuTorch(ExporterConformance):
    name = "pte"

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("executorch.exir", reason="executorch is not installed: pip install 'latlab[executorch]'")

    @pytest.mark.parametrize("operator", list(NETWORKS)[::4])
    def test_every_operator_agrees_with_eager_pytorch(  # type: ignore[override]
        self, exporter: Exporter, path: Path, operator: str
    ) -> None:
        """A quarter of them, at one batch size: the passes are not latlab's, and take a second for each export."""
        super().test_every_operator_agrees_with_eager_pytorch(exporter, path, operator, 3)

    @pytest.mark.parametrize("space", ["fbnet"])
    def test_any_perturbed_layer_is_noticed(self, exporter: Exporter, path: Path, space: str) -> None:
        super().test_any_perturbed_layer_is_noticed(exporter, path, space)

    def test_an_operator_that_executorch_lacks_is_named(self, path: Path) -> None:
        module = Net(lambda _, x: torch.special.i0(x))
        with pytest.raises(ExportError, match="i0") as failure:
            get_exporter("pte").export(module, torch.zeros(1, *SHAPE), path)
        assert failure.value.kind == "unsupported_op"
        assert not path.exists()

    def test_names_xnnpacks_operators_and_those_of_its_own(self, path: Path) -> None:
        """XNNPACK has folded the batch norm and the ReLU into the convolution; it takes no mean without `keepdim`."""
        module = nn.Sequential(network("conv-nobias-bn-relu"), Net(lambda _, x: x.mean((2, 3)))).eval()
        histogram = get_exporter("pte").export(module, torch.zeros(1, *SHAPE), path)
        assert histogram == {"XNNConv2d": 1, "XNNStaticTranspose": 2, "aten::mean.out": 1}
        with runtimes.open("executorch", path) as session:
            assert session.delegation == runtimes.Delegation(operators=4, delegated=3, partitions=1)


def test_without_executorch_its_version_is_an_error_that_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        if name == "executorch":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr("latlab.harness.exporters.executorch.version", missing)
    with pytest.raises(BadInputError, match=r"pip install 'latlab\[executorch\]'"):
        _ = get_exporter("pte").version


def test_unknown_format_names_those_that_exist() -> None:
    assert {"onnx", "tflite", "torchscript"} <= set(names())
    with pytest.raises(UnknownFormatError, match=r"'coreml'.*onnx.*tflite"):
        get_exporter("coreml")
