"""Small model files of the kinds that wheels lack, made here with torch, onnx and onnxruntime."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import parser
from onnxruntime import quantization
from torch import Tensor, nn

IMAGE = (1, 3, 32, 32)


def make(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Write the files into `folder`, and return their paths and, by name, why others could not be made."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    files, failed = [], {}
    for name, way in OWN.items():
        path = folder / name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                way(path)
            files.append(path)
        except Exception as error:  # torch's and onnxruntime's errors have no common base; the table shows them
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return files, failed


class Convolutions(nn.Module):
    """A small network of images."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.head = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image).flatten(1))


class Encoder(nn.Module):
    """A text encoder with the usual inputs of BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.kinds = nn.Embedding(1000, 64), nn.Embedding(2, 64)
        self.layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        hidden = self.words(input_ids) + self.kinds(token_type_ids)
        return self.layer(hidden * attention_mask.unsqueeze(-1).to(hidden.dtype))


class Recommender(nn.Module):
    """Dense numbers and three columns of categories, after DLRM (Naumov et al., 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, 16) for size in (1000, 100, 20))
        self.dense, self.top = nn.Linear(13, 16), nn.Linear(64, 1)

    def forward(self, numbers: Tensor, item: Tensor, shop: Tensor, country: Tensor) -> Tensor:
        columns = [table(ids) for table, ids in zip(self.tables, (item, shop, country), strict=True)]
        return torch.sigmoid(self.top(torch.cat([self.dense(numbers), *columns], 1)))


class Decoder(nn.Module):
    """One step of attention over the keys and values of earlier steps, of which there may be none."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.project = nn.Embedding(500, 64), nn.Linear(64, 192)

    def forward(self, input_ids: Tensor, past_key: Tensor, past_value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.project(self.words(input_ids)).chunk(3, -1)
        keys, values = torch.cat([past_key, key], 1), torch.cat([past_value, value], 1)
        return nn.functional.scaled_dot_product_attention(query, keys, values), keys, values


class Tagger(nn.Module):
    """Arguments of many kinds, as TorchScript takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 32)

    def forward(self, ids: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Tensor:
        hidden = self.words(ids) * scale
        return hidden if mask is None else hidden * mask.unsqueeze(-1)


class Parts(nn.Module):
    """A list of tensors as the only argument."""

    def forward(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, 1).sum(1)


class Named(nn.Module):
    """A dictionary of tensors as the only argument."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["image"].mean(1)


def _export(module: nn.Module, arguments: tuple[Any, ...], path: Path, names: list[str], **open_sides: Any) -> None:
    axes = open_sides.pop("axes", {})
    torch.onnx.export(
        module.eval(), arguments, str(path), input_names=names, dynamic_axes=axes, dynamo=False, **open_sides
    )


def _image(path: Path) -> None:
    _export(
        Convolutions(), (torch.zeros(IMAGE),), path, ["image"], axes={"image": {0: "batch", 2: "height", 3: "width"}}
    )


def _half(path: Path) -> None:
    _export(Convolutions().half(), (torch.zeros(IMAGE, dtype=torch.float16),), path, ["image"])


def _encoder(path: Path) -> None:
    ids = torch.ones(1, 8, dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    _export(Encoder(), (ids, ids, ids * 0), path, names, axes={name: {0: "batch", 1: "seq"} for name in names})


def _recommender(path: Path) -> None:
    names = ["numbers", "item", "shop", "country"]
    ids = torch.zeros(2, dtype=torch.int64)
    axes = {name: {0: "batch"} for name in names}
    _export(Recommender(), (torch.zeros(2, 13), ids, ids, ids), path, names, axes=axes)


def _decoder(path: Path) -> None:
    names = ["input_ids", "past_key", "past_value"]
    past = torch.zeros(1, 5, 64)
    axes = {"input_ids": {0: "batch"}, **{name: {0: "batch", 1: "past"} for name in names[1:]}}
    _export(Decoder(), (torch.ones(1, 1, dtype=torch.int64), past, past), path, names, axes=axes)


def _sidecar(path: Path) -> None:
    """Write a network with torch's default exporter, which puts weights into a file beside the model."""
    if importlib.util.find_spec("onnxscript") is None:
        raise RuntimeError("torch's default exporter needs the package onnxscript")
    torch.onnx.export(Convolutions(256).eval(), (torch.zeros(IMAGE),), str(path), verbose=False)
    if not list(path.parent.glob(f"{path.name}?*")):
        raise RuntimeError("torch wrote no file beside the model")


def _many_sidecars(path: Path) -> None:
    """Write a file for each weight, in a folder of their own with a space in its name."""
    path.parent.mkdir(exist_ok=True)
    _export(Convolutions(), (torch.zeros(IMAGE),), path, ["image"])
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)


def _lost_sidecar(path: Path) -> None:
    _many_sidecars(path)
    for beside in path.parent.iterdir():
        if beside != path:
            beside.unlink()


class _Images(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Four images to calibrate with."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.images = iter([{"image": generator.normal(size=IMAGE).astype(np.float32)} for _ in range(4)])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.images, None)


def _quantized(path: Path, form: Any) -> None:
    whole = path.with_name(f".{path.name}")
    _export(Convolutions(), (torch.zeros(IMAGE),), whole, ["image"])
    quantization.quantize_static(whole, path, _Images(), quant_format=form)
    whole.unlink()


def _dynamic_int8(path: Path) -> None:
    whole = path.with_name(f".{path.name}")
    _encoder(whole)
    quantization.quantize_dynamic(whole, path)
    whole.unlink()


def _ort(path: Path) -> None:
    """Write ONNX Runtime's own format."""
    whole = path.with_name(f".{path.name}.onnx")
    _image(whole)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # for any machine
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(whole, options, providers=["CPUExecutionProvider"])
    whole.unlink()


def _text(source: str) -> Callable[[Path], None]:
    """Return what writes the ONNX model that `source` spells (onnx's text format)."""
    return lambda path: onnx.save(parser.parse_model(source), path)


IF = """<ir_version: 8, opset_import: ["" : 17]>
choose (bool flag, float[n, 64] x) => (float[n, 64] y) {
  y = If (flag) <
    then_branch = yes () => (float[n, 64] a) { a = Relu (x) },
    else_branch = no () => (float[n, 64] b) { b = Neg (x) }
  >
}"""

LOOP = """<ir_version: 8, opset_import: ["" : 17]>
repeat (int64 times, float[8, 8] x) => (float[8, 8] y) {
  go = Constant <value_int = 1> ()
  flag = Cast <to = 9> (go)
  y = Loop (times, flag, x) <body = once (int64 step, bool on, float[8, 8] before) => (bool again, float[8, 8] after) {
    again = Identity (on)
    after = MatMul (before, before)
  }>
}"""

FUNCTION = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
with_function (float[batch, 16] x) => (float[batch, 16] y) { y = own.double (x) }
<domain: "own", opset_import: ["" : 17]>
double (a) => (b) { b = Add (a, a) }"""

UNKNOWN_OPERATOR = """<ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>
unknown (float[1, 16] x) => (float[1, 16] y) { y = com.example.Fancy (x) }"""

ANY_RANK = """<ir_version: 8, opset_import: ["" : 17]>
any_rank (float[] x) => (float[] y) { y = Relu (x) }"""

ONLY_CONSTANTS = """<ir_version: 8, opset_import: ["" : 17]>
no_input () => (float[4] y) { y = RandomNormal <shape = [4]> () }"""


def _traced(module: nn.Module, *arguments: Any) -> Callable[[Path], None]:
    return lambda path: torch.jit.trace(module.eval(), arguments, check_trace=False).save(str(path))


def _scripted(module: nn.Module) -> Callable[[Path], None]:
    return lambda path: torch.jit.script(module.eval()).save(str(path))


def _torch_int8(path: Path) -> None:
    module = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(64, 64), nn.ReLU()), {nn.Linear})
    torch.jit.trace(module.eval(), torch.zeros(1, 64)).save(str(path))


def _exported_program(path: Path) -> None:
    torch.export.save(torch.export.export(Convolutions().eval(), (torch.zeros(IMAGE),)), path)


IDS = torch.ones(2, 5, dtype=torch.int64)
OWN: dict[str, Callable[[Path], None]] = {
    "image, open sides.onnx": _image,
    "fp16.onnx": _half,
    "text_encoder.onnx": _encoder,
    "recommender.onnx": _recommender,
    "decoder_with_past.onnx": _decoder,
    "sidecar.onnx": _sidecar,
    "a folder/many_sidecars.onnx": _many_sidecars,
    "lost/lost_sidecar.onnx": _lost_sidecar,
    "int8_qdq.onnx": lambda path: _quantized(path, quantization.QuantFormat.QDQ),
    "int8_operators.onnx": lambda path: _quantized(path, quantization.QuantFormat.QOperator),
    "int8_dynamic.onnx": _dynamic_int8,
    "if.onnx": _text(IF),
    "loop.onnx": _text(LOOP),
    "function.onnx": _text(FUNCTION),
    "any_rank.onnx": _text(ANY_RANK),
    "no_input.onnx": _text(ONLY_CONSTANTS),
    "unknown_operator.onnx": _text(UNKNOWN_OPERATOR),
    "CAPITALS.ONNX": _image,
    "image.ort": _ort,
    "image.torchscript": _traced(Convolutions(), torch.zeros(IMAGE)),
    "traced_int64.pt": _traced(Encoder(), IDS, IDS, IDS * 0),
    "half.pt": _traced(Convolutions().half(), torch.zeros(IMAGE, dtype=torch.float16)),
    "bfloat16.pt": _traced(Convolutions().bfloat16(), torch.zeros(IMAGE, dtype=torch.bfloat16)),
    "int8_dynamic.pt": _torch_int8,
    "optional.pt": _scripted(Tagger()),
    "list.pt": _scripted(Parts()),
    "dictionary.pt": _scripted(Named()),
    "lite.ptl": lambda path: torch.jit.script(Convolutions().eval())._save_for_lite_interpreter(str(path)),
    "state_dict.pt": lambda path: torch.save(Convolutions().state_dict(), path),
    "whole_module.pth": lambda path: torch.save(Convolutions(), path),
    "exported_program.pt2": _exported_program,
    "empty.onnx": lambda path: path.write_bytes(b"") and None,
    "web_page.onnx": lambda path: path.write_text("<!DOCTYPE html><html>Not Found</html>") and None,
    "lfs_pointer.tflite": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n") and None,
}
"""What writes each file, by its name."""
