"""Sources of accuracies that compute: Once-for-all's accuracy predictor and ONNX models; and the choice of a source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlab.harness.errors import BadInputError
from latlab.harness.models.factory import is_factory
from latlab.harness.search.accuracy import PROXIES, SOURCES, AccuracySource, Proxy, as_accuracies, table_of
from latlab.harness.search.functions import Function, function_source, named_function
from latlab.harness.search.plain_arrays import NUMBERS, read_arrays
from latlab.harness.text import count
from latlab.search_spaces import SearchSpace

__all__ = ["Function", "OFAAccuracy", "OnnxAccuracy", "accuracy_source"]

Genes = NDArray[np.int64]
Floats = NDArray[np.float64]

LAYERS = (0, 2, 4, 6)
"""Numbers of the linear layers in the weights of OFA's predictor, a `nn.Sequential` with ReLUs between them."""
MOST_BYTES = 1 << 30
INPUT_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    **{f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "tensor(bool)": np.bool_,
}
"""Types of inputs, as ONNX Runtime calls them."""
ONE_EACH = "Its first output must hold one number for each network: shape (n,) or (n, 1), for any n."


def accuracy_source(
    given: str | Path | Callable[[Genes], Any] | AccuracySource, space: SearchSpace, column: str | None = None
) -> AccuracySource:
    """Return the source that a word of the command line, a path, a function or a source itself means.

    Args:
        given: `SOURCES`.
        space: the search space.
        column: the column of accuracies, for a table.

    Raises:
        BadInputError: there is no such source, or it does not fit the space.
    """
    if not isinstance(given, str | Path):
        if hasattr(given, "identity"):
            return given  # type: ignore[return-value]
        return function_source(given)
    word, suffix = str(given), Path(given).suffix.lower()
    if column is not None and suffix not in (".csv", ".tsv", ".parquet"):
        raise BadInputError("--accuracy-column is for a table", "Leave it out.")
    if word in PROXIES:
        return Proxy(space, word)
    if is_factory(word):
        return named_function(word)
    path = Path(given)
    if suffix not in (".csv", ".tsv", ".parquet", ".npz", ".onnx"):
        raise BadInputError(f"{word!r:.80} is no source of accuracies", SOURCES)
    if not path.is_file():
        raise BadInputError(f"there is no file {path}", SOURCES)
    if suffix == ".npz":
        return OFAAccuracy.read(path, space)
    if suffix == ".onnx":
        return OnnxAccuracy.read(path, space)
    return table_of(path, space, column)


@dataclass
class OFAAccuracy:
    """Once-for-all's accuracy predictor: an MLP 128-400-400-400-1 with ReLUs over OFA's encoding (Cai et al. 2020)."""

    name: str
    identity: str
    _space: SearchSpace = field(repr=False)
    _layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = field(repr=False)
    quick: bool = True

    @classmethod
    def read(cls, path: Path, space: SearchSpace) -> OFAAccuracy:
        """Return the predictor whose weights are in an .npz file, as `0.weight`, `0.bias`, `2.weight`, ...

        Raises:
            BadInputError: the file holds something else, or the space has no encoding `ofa`.
        """
        if "ofa" not in space.encodings:
            raise BadInputError(
                f"{path} is a predictor of OFA's accuracies, which {space.name} has no encoding for",
                "Search in ofa-mobilenetv3, or name another source with --accuracy.",
            )
        names = [f"{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")]
        try:
            arrays = read_arrays(path, dict.fromkeys(names, NUMBERS), MOST_BYTES)
            content = path.read_bytes()
            with np.errstate(over="ignore"):  # what is too large for 32 bits is found below
                found = [arrays[name].astype(np.float32) for name in names]
            layers = list(zip(found[::2], found[1::2], strict=True))
            width = space.encode(space.genes(space.references()[:1]), "ofa").shape[1]
            for weight, bias in layers:
                if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
                    raise ValueError(f"a layer has weights of shape {weight.shape}")
                if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                    raise ValueError("a weight is no number")
                width = len(bias)
            if width != 1:
                raise ValueError(f"it has {width} outputs")
        except (OSError, ValueError) as error:
            raise BadInputError(
                f"{path} is no accuracy predictor of OFA: {str(error)[:200]}",
                "It holds 0.weight, 0.bias, 2.weight, ..., 6.bias of an MLP 128-400-400-400-1.",
            ) from error
        return cls(f"OFA's accuracy predictor, {path.name}", hashlib.sha256(content).hexdigest(), space, layers)

    def __call__(self, genes: Genes) -> Floats:
        values = self._space.encode(genes, "ofa").astype(np.float32, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is no accuracy
            for weight, bias in self._layers[:-1]:
                values = np.maximum(values @ weight.T + bias, 0)
            weight, bias = self._layers[-1]
            found = (values @ weight.T + bias)[:, 0]
        return as_accuracies(found, self.name, len(genes))


@dataclass
class OnnxAccuracy:
    """An ONNX model with one input, an encoding of n networks, and an output of n accuracies."""

    name: str
    identity: str
    _space: SearchSpace = field(repr=False)
    _encoding: str = field(repr=False)
    _session: Any = field(repr=False)
    quick: bool = False

    @classmethod
    def read(cls, path: Path, space: SearchSpace) -> OnnxAccuracy:
        """Return the model, with the encoding of the space whose length is that of its input.

        Raises:
            BadInputError: it cannot be run, or takes no encoding of the space.
        """
        import onnxruntime

        try:
            content = path.read_bytes()
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = 1, 4
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            inputs = session.get_inputs()
        except Exception as error:  # ONNX Runtime raises kinds of its own
            reason = " ".join(str(error).split())[:200]
            raise BadInputError(f"{path} is no ONNX model of accuracies: {reason}", "It takes one input.") from error
        encoding = _encoding_for(inputs, path, space)
        name = f"{path.name} over {encoding}"
        return cls(name, hashlib.sha256(content).hexdigest(), space, encoding, session)

    def __call__(self, genes: Genes) -> Floats:
        given = self._session.get_inputs()[0]
        values = genes if self._encoding == "genes" else self._space.encode(genes, self._encoding)
        cast = values.astype(INPUT_TYPES[given.type])
        if cast.dtype.kind != "f" and not (cast == values).all():
            raise BadInputError(
                f"{self.name} takes {cast.dtype}, which cannot hold all values of this encoding",
                "Export it with an input of 32-bit floating-point numbers.",
            )
        parts = np.split(cast, len(cast)) if given.shape[0] == 1 and len(cast) else [cast]
        found: list[Any] = []
        for part in parts:
            try:
                answer = np.asarray(self._session.run(None, {given.name: part})[0])
            except Exception as error:  # ONNX Runtime raises kinds of its own
                raise BadInputError(f"{self.name} failed: {' '.join(str(error).split())[:200]}", ONE_EACH) from error
            if answer.dtype.kind not in (*NUMBERS, "b"):
                raise BadInputError(f"{self.name} returned values of type {answer.dtype}", ONE_EACH)
            if answer.size != len(part):
                raise BadInputError(
                    f"{self.name} returned {count(answer.size, 'number')} for {count(len(part), 'network')}", ONE_EACH
                )
            found.append(answer.reshape(len(part)))
        return as_accuracies(np.concatenate(found), self.name, len(genes))


def _encoding_for(inputs: Sequence[Any], path: Path, space: SearchSpace) -> str:
    """Return the encoding that a model's input takes. Raises `BadInputError` if there is none."""
    one = space.genes(space.references()[:1])
    widths = {name: space.encode(one, name).shape[1] for name in space.encodings if name != "graph"}
    widths["genes"] = space.num_genes
    lengths = ", ".join(f"{name} ({length})" for name, length in widths.items())
    hint = f"Its input has the shape (n, length). Encodings of {space.name} have these lengths: {lengths}."
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise BadInputError(f"{path} takes {count(len(inputs), 'input')} ({names:.100}), not one", hint)
    (given,) = inputs
    if not given.shape:
        raise BadInputError(f"{path} takes an input without a shape, so its encoding is not known", hint)
    if given.type not in INPUT_TYPES:
        raise BadInputError(f"{path} takes an input of type {given.type}, not of numbers", hint)
    fitting = [name for name, length in widths.items() if length == given.shape[-1] and len(given.shape) == 2]
    if not fitting:
        raise BadInputError(f"{path} takes an input of shape {given.shape}, which is no encoding of {space.name}", hint)
    if isinstance(given.shape[0], int) and given.shape[0] != 1:
        raise BadInputError(
            f"{path} takes exactly {given.shape[0]} networks at once",
            "Export it with a first axis of any size, or of size 1.",
        )
    return fitting[0]
