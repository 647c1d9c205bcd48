"""Reads TorchScript files and programs of `torch.export`."""

from __future__ import annotations

import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from latlab.harness.errors import BadInputError
from latlab.harness.models.description import FLOATS, ModelDescription, PrecisionShares, TensorInfo, target_precision

__all__ = ["describe_exported_program", "describe_torchscript", "kind_of_archive", "load_exported_program"]

SAME_VALUES = (
    "aten::to",
    "aten::view",
    "aten::reshape",
    "aten::contiguous",
    "aten::unsqueeze",
    "aten::slice",
    "aten::_cast",
)


def kind_of_archive(path: Path) -> str | None:
    """Return `torchscript`, `pt2` or `pickle` for a zip archive by torch; None for any other file.

    Raises:
        BadInputError: if the archive is damaged.
    """
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise BadInputError(f"{path} is a damaged archive: {error}") from error
    if any(name.startswith("code/") for name in names):
        return "torchscript"
    if any(name == "archive_format" or name.startswith("models/") for name in names):
        return "pt2"
    return "pickle" if "data.pkl" in names else None


def describe_torchscript(path: Path) -> ModelDescription:
    """Return what a TorchScript file says. It keeps names and kinds of inputs, but no shapes and no types.

    Raises:
        BadInputError: if torch cannot load it.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
            schema = module.forward.schema
            graph = module.graph.copy()
            state = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInputError(f"cannot read the TorchScript file {path}: {reason}") from error
    tensors = list(state.values())
    passes: Any = torch._C
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frozen = torch.jit.freeze(module.eval()) if hasattr(module, "training") else module
            graph = frozen.graph.copy()
        passes._jit_pass_inline(graph)
    except Exception:  # not every module can be frozen: then ranges stay unknown
        pass
    nodes = list(graph.findAllNodes("aten::embedding", True))
    kinds = Counter(node.kind() for node in _all_nodes(graph) if not node.kind().startswith("prim::"))
    if not tensors:  # frozen: the weights are constants of the graph
        tensors = [node.output().toIValue() for node in graph.findAllNodes("prim::Constant", True) if _is_tensor(node)]
    shares = PrecisionShares()
    for tensor in tensors:
        name = str(tensor.dtype).removeprefix("torch.")
        if name in FLOATS and tensor.dim() > 1:
            kind = FLOATS[name]
            shares.add(target_precision(kind), kind, tensor.numel())
    if any(kind.startswith("quantized::") for kind in kinds):
        dynamic = any("dynamic" in kind for kind in kinds)
        precision, detail = "int8", "int8 dynamic" if dynamic else "int8"
    else:
        precision, detail = shares.conclusion()
    high = _tables(graph, nodes)
    inputs = tuple(
        TensorInfo(
            str(one.name),
            None,
            None,
            optional=bool(one.has_default_value()),
            high=high.get(place),
            kind=_kind(str(one.type)),
        )
        for place, one in enumerate(schema.arguments[1:])
    )
    return ModelDescription(
        path=path,
        format="torchscript",
        version="TorchScript",
        size_bytes=path.stat().st_size,
        inputs=inputs,
        outputs=tuple(
            TensorInfo(str(one.name or "output"), None, None, kind=_kind(str(one.type))) for one in schema.returns
        ),
        operators=dict(sorted(kinds.items())),
        parameters=sum(tensor.numel() for tensor in tensors),
        macs=None,
        precision=precision,
        precision_detail=detail,
        notes=["the file keeps no shapes and no types of its inputs"],
    )


def _kind(text: str) -> str:
    return {"Tensor": "tensor", "Optional[Tensor]": "tensor", "List[Tensor]": "list of tensors"}.get(text, text)


def _all_nodes(block: Any) -> Any:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _all_nodes(inner)


def _is_tensor(node: Any) -> bool:
    constant = node.hasAttribute("value") and node.kindOf("value") == "t"
    return bool(constant and node.output().type().kind() == "TensorType")


def _tables(graph: Any, embeddings: list[Any]) -> dict[int, int]:
    """Return the greatest index of each input, by place, that goes into a table of embeddings."""
    places = {value.debugName(): place for place, value in enumerate(list(graph.inputs())[1:])}
    found: dict[int, int] = {}
    for node in embeddings:
        table, index = list(node.inputs())[:2]
        for _ in range(16):
            if index.debugName() in places or index.node().kind() not in SAME_VALUES:
                break
            index = next(iter(index.node().inputs()))
        place = places.get(index.debugName())
        rows = table.toIValue() if table.node().kind() == "prim::Constant" else None
        if place is not None and rows is not None:
            found[place] = min(found.get(place, rows.shape[0] - 1), rows.shape[0] - 1)
    return found


@contextmanager
def _without_pickles() -> Iterator[None]:
    """Let torch.export load no pickles meanwhile: it would, for weights and constants of unusual types.

    A file may come from anybody, and a pickle can run any code.
    """
    import torch
    from torch.export.pt2_archive import _package

    load: Any = torch.load
    package: Any = _package

    def load_tensors(*args: Any, **options: Any) -> Any:
        return load(*args, **{**options, "weights_only": True})

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise ValueError("it holds a pickle, which can run any code")

    torch.load, pickles = load_tensors, package.pickle
    package.pickle = SimpleNamespace(loads=refuse, load=refuse)
    try:
        yield
    finally:
        torch.load, package.pickle = load, pickles


def load_exported_program(path: Path) -> Any:
    """Return the program of `torch.export` in a file.

    Raises:
        BadInputError: if torch cannot load it without unpickling anything.
    """
    import torch

    try:
        with warnings.catch_warnings(), _without_pickles():
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInputError(f"cannot read the torch.export program {path}: {reason}") from error


def describe_exported_program(path: Path) -> ModelDescription:
    """Return what a program of `torch.export` says: shapes, types, operators and weights.

    Raises:
        BadInputError: if torch cannot load it.
    """
    program = load_exported_program(path)
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    names = program.graph_signature.user_inputs
    shares = PrecisionShares()
    weights = [*program.state_dict.values(), *program.constants.values()]
    tensors = [one for one in weights if hasattr(one, "numel")]
    for tensor in tensors:
        name = str(tensor.dtype).removeprefix("torch.")
        if name in FLOATS and tensor.dim() > 1:
            shares.add(target_precision(FLOATS[name]), FLOATS[name], tensor.numel())
    kinds = Counter(str(node.target) for node in program.graph.nodes if node.op == "call_function")
    precision, detail = shares.conclusion()
    if any("quantized_decomposed" in kind for kind in kinds):
        precision, detail = "int8", "int8"
    return ModelDescription(
        path=path,
        format="pt2",
        version=f"torch.export, schema {getattr(program, 'schema_version', '?')}",
        size_bytes=path.stat().st_size,
        inputs=tuple(_fake(name, values.get(name)) for name in names if isinstance(name, str)),
        outputs=tuple(_fake(str(name), values.get(str(name))) for name in program.graph_signature.user_outputs),
        operators=dict(sorted(kinds.items())),
        parameters=sum(tensor.numel() for tensor in tensors),
        macs=None,
        precision=precision,
        precision_detail=detail,
    )


def _fake(name: str, value: Any) -> TensorInfo:
    if not hasattr(value, "shape"):
        return TensorInfo(name, None, None, kind=type(value).__name__)
    sides = tuple(side if isinstance(side, int) else str(side) for side in value.shape)
    return TensorInfo(name, sides, str(value.dtype).removeprefix("torch."))
