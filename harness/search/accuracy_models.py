"""Sources of accuracies that compute: Once-for-all's accuracy predictor, ONNX models, functions of the user's."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlab.harness.errors import BadInputError
from latlab.harness.models.factory import is_factory, named_object, running_user_code
from latlab.harness.search.accuracy import PROXIES, SOURCES, AccuracySource, Proxy, table_of
from latlab.search_spaces import SearchSpace

__all__ = ["Function", "OFAAccuracy", "OnnxAccuracy", "accuracy_source"]

Genes = NDArray[np.int64]
Floats = NDArray[np.float64]

LAYERS = (0, 2, 4, 6)
"""Numbers of the linear layers in the weights of OFA's predictor, a `nn.Sequential` with ReLUs between them."""
MOST_BYTES = 1 << 30


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
        return Function(getattr(given, "__qualname__", type(given).__name__), given)
    word, suffix = str(given), Path(given).suffix.lower()
    if column is not None and suffix not in (".csv", ".tsv", ".parquet"):
        raise BadInputError("--accuracy-column is for a table", "Leave it out.")
    if word in PROXIES:
        return Proxy(space, word)
    if is_factory(word):
        return _named_function(word)
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
class Function:
    """A Python function of the user's, which takes genes (n, genes) and returns n accuracies."""

    name: str
    function: Callable[[Genes], Any] = field(repr=False)
    identity: str = ""
    quick: bool = False

    def __post_init__(self) -> None:
        self.identity = self.identity or f"{getattr(self.function, '__module__', '')} {self.name}"
        if not callable(self.function):
            raise BadInputError(f"{self.name} is no function", "It must take genes and return accuracies.")

    def __call__(self, genes: Genes) -> Floats:
        with running_user_code(self.name, "instead of returning accuracies"):
            try:
                found = np.asarray(self.function(genes.copy()), dtype=np.float64)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # the user's code may raise anything
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")
                raise BadInputError(f"{self.name} failed: {reason}") from error
        if found.shape != (len(genes),):
            raise BadInputError(
                f"{self.name} returned an array of shape {found.shape} for {len(genes)} networks",
                f"It must return one accuracy for each row of genes: shape ({len(genes)},).",
            )
        return _finite(found, self.name)


def _named_function(word: str) -> Function:
    with running_user_code(word, "when it was imported"):
        try:
            found = named_object(word)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # importing runs the user's code
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")
            raise BadInputError(f"{word} cannot be imported: {reason}") from error
    file = Path(getattr(getattr(found, "__code__", None), "co_filename", ""))
    content = file.read_bytes() if file.is_file() else b""
    return Function(word, found, f"{word} {hashlib.sha256(content).hexdigest()}")


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
        try:
            content = path.read_bytes()
            with zipfile.ZipFile(path) as packed:
                if sum(one.file_size for one in packed.infolist()) > MOST_BYTES:
                    raise ValueError("it is too large")
            with np.load(path, allow_pickle=False) as arrays:
                layers = [(arrays[f"{i}.weight"], arrays[f"{i}.bias"]) for i in LAYERS]
            width = space.encode(space.genes(space.references()[:1]), "ofa").shape[1]
            for weight, bias in layers:
                if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
                    raise ValueError(f"a layer has weights of shape {weight.shape}")
                if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                    raise ValueError("a weight is no number")
                width = len(bias)
            if width != 1:
                raise ValueError(f"it has {width} outputs")
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise BadInputError(
                f"{path} is no accuracy predictor of OFA: {str(error)[:200]}",
                "It holds 0.weight, 0.bias, 2.weight, ..., 6.bias of an MLP 128-400-400-400-1.",
            ) from error
        whole = [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in layers]
        return cls(f"OFA's accuracy predictor, {path.name}", hashlib.sha256(content).hexdigest(), space, whole)

    def __call__(self, genes: Genes) -> Floats:
        values = self._space.encode(genes, "ofa").astype(np.float32, copy=False)
        for weight, bias in self._layers[:-1]:
            values = np.maximum(values @ weight.T + bias, 0)
        weight, bias = self._layers[-1]
        return np.asarray((values @ weight.T + bias)[:, 0], dtype=np.float64)


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
            (given,) = session.get_inputs()
            rank, width = len(given.shape), given.shape[-1]
        except Exception as error:  # ONNX Runtime raises kinds of its own
            reason = " ".join(str(error).split())[:200]
            raise BadInputError(f"{path} is no ONNX model of accuracies: {reason}", "It takes one input.") from error
        one = space.genes(space.references()[:1])
        widths = {name: space.encode(one, name).shape[1] for name in space.encodings if name != "graph"}
        widths["genes"] = space.num_genes
        fitting = [name for name, length in widths.items() if length == width and rank == 2]
        if not fitting:
            known = ", ".join(f"{name} ({length})" for name, length in widths.items())
            raise BadInputError(
                f"{path} takes an input of shape {given.shape}, which is no encoding of {space.name}",
                f"Its encodings are vectors of these lengths: {known}.",
            )
        name = f"{path.name} over {fitting[0]}"
        return cls(name, hashlib.sha256(content).hexdigest(), space, fitting[0], session)

    def __call__(self, genes: Genes) -> Floats:
        given = self._session.get_inputs()[0]
        values = genes if self._encoding == "genes" else self._space.encode(genes, self._encoding)
        kind = {"tensor(double)": np.float64, "tensor(int64)": np.int64}.get(given.type, np.float32)
        try:
            found = np.asarray(self._session.run(None, {given.name: values.astype(kind)})[0], np.float64)
        except Exception as error:  # ONNX Runtime raises kinds of its own
            raise BadInputError(f"{self.name} failed: {' '.join(str(error).split())[:200]}") from error
        if found.size != len(genes):
            raise BadInputError(f"{self.name} returned {found.size} numbers for {len(genes)} networks")
        return _finite(found.reshape(len(genes)), self.name)


def _finite(found: Floats, name: str) -> Floats:
    if not np.isfinite(found).all():
        row = int(np.argmin(np.isfinite(found)))
        raise BadInputError(f"{name} returned {found[row]} for network {row} of {len(found)}", "Return finite numbers.")
    return found
