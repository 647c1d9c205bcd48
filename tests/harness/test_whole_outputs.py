"""No output is written in place: a reader, a full disk or a kill finds the old file or the new one, whole."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HELPERS = {"whole_file", "replaced_file", "whole_folder"}
METHODS = {"write_text", "write_bytes", "touch"}
"""Methods of a path that write it."""
WRITERS = {
    "to_csv", "to_parquet", "to_json", "to_pickle", "to_feather", "to_excel", "savefig", "save_file", "savez",
    "savez_compressed", "savetxt", "tofile", "ZipFile", "copy", "copy2", "copyfile",
}  # fmt: skip
"""Functions and methods that write to their first argument, or to the second if they copy."""
COPIES = {"copy", "copy2", "copyfile"}

ELSEWHERE = {
    # What is written to has a temporary name, and its caller gives it its place in one step.
    "harness/exporters/executorch.py": "ArtifactCache.temporary",
    "harness/exporters/onnx.py": "ArtifactCache.temporary",
    "harness/exporters/torchscript.py": "ArtifactCache.temporary",
    "harness/exporters/tflite/__init__.py": "ArtifactCache.temporary",
    "harness/exporters/cache.py": "an entry of the cache, by os.replace from the same folder",
    "harness/models/embedding.py": "ArtifactCache.temporary",
    "harness/transports/local/transport.py": "a file on a device, by os.replace from the same folder",
    "harness/transports/simulated/storage.py": "a file on a simulated device, which is given its place in one step",
    "harness/cli/table_files.py": "write_frames: a file that the caller has from whole_file",
    "predictors/common/kept.py": "by os.replace from the same folder, and it can be made again",
    "predictors/common/serialization.py": "a folder that the caller has from whole_folder",
    # Files for this process alone, in a temporary folder.
    "harness/exporters/layers/tflite.py": "tempfile.NamedTemporaryFile",
    "harness/exporters/tflite/calibration.py": "tempfile.NamedTemporaryFile",
    "harness/store/descriptors.py": "a copy of a store in tempfile.TemporaryDirectory",
    "harness/active_learning/fitted_predictor.py": "a folder that the caller has from whole_folder",
    "harness/active_learning/onboarding_result.py": "save_onboarding: a folder that the caller has from whole_folder",
    "harness/paths.py": "the helpers",
}
"""Modules that write in other ways, and why nothing is lost there."""


def _modules() -> list[str]:
    files = [one for package in ("harness", "predictors", "search_spaces") for one in (ROOT / package).rglob("*.py")]
    return sorted(str(one.relative_to(ROOT)) for one in files)


def _parsed(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_write_mode(mode: ast.expr) -> bool:
    """Return whether an argument of `open` may be a mode that writes."""
    if isinstance(mode, ast.IfExp):
        return _is_write_mode(mode.body) or _is_write_mode(mode.orelse)
    if isinstance(mode, ast.Constant):
        return set(str(mode.value)) <= set("rwxabt+") and bool(set(str(mode.value)) & set("wax+"))
    return _name(mode) == "mode"


def _written(call: ast.Call) -> ast.expr | None:
    """Return what a call writes to; None if it writes to no file."""
    name, arguments = _name(call.func), call.args
    if name in METHODS and isinstance(call.func, ast.Attribute):
        return call.func.value
    if name == "open" and not (
        isinstance(call.func, ast.Attribute) and _name(call.func.value) in ("os", "runtimes", "webbrowser")
    ):
        is_method = isinstance(call.func, ast.Attribute)
        modes = [*arguments[0 if is_method else 1 :][:1], *(one.value for one in call.keywords if one.arg == "mode")]
        if any(_is_write_mode(mode) for mode in modes):
            return call.func.value if isinstance(call.func, ast.Attribute) else arguments[0]
        return None
    if name == "dump" and len(arguments) > 1:
        return arguments[1]
    if name == "ZipFile":
        modes = [*arguments[1:2], *(one.value for one in call.keywords if one.arg == "mode")]
        return arguments[0] if any(isinstance(one, ast.Constant) and one.value != "r" for one in modes) else None
    if name in COPIES:
        is_shutil = isinstance(call.func, ast.Attribute) and _name(call.func.value) == "shutil"
        return arguments[1] if is_shutil else None
    return arguments[0] if name in WRITERS and arguments else None


def _names(node: ast.expr) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _direct(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of each write to something that neither a helper nor a buffer in memory has given."""

    def visit(node: ast.AST, safe: frozenset[str]) -> Iterator[tuple[int, str]]:
        if isinstance(node, ast.FunctionDef | ast.Module):
            for one in ast.walk(node):
                if isinstance(one, ast.Assign) and isinstance(one.value, ast.Call) and _name(one.value.func) in (
                    "BytesIO", "StringIO",
                ):  # fmt: skip
                    safe |= frozenset(name for target in one.targets for name in _names(target))
        if isinstance(node, ast.With):
            for item in node.items:
                call = item.context_expr
                given = isinstance(call, ast.Call) and (
                    _name(call.func) in HELPERS
                    or (_name(call.func) == "open" and (to := _written(call)) is not None and _names(to) & safe)
                )
                if given and item.optional_vars is not None:
                    safe |= frozenset(_names(item.optional_vars))
        if isinstance(node, ast.Call) and (to := _written(node)) is not None and not _names(to) & safe:
            yield node.lineno, ast.unparse(node)[:100]
        for child in ast.iter_child_nodes(node):
            yield from visit(child, safe)

    return visit(tree, frozenset())


def test_nothing_is_written_in_place() -> None:
    found = {
        module: writes
        for module in _modules()
        if module not in ELSEWHERE and (writes := list(_direct(_parsed(module))))
    }
    assert not found, "these write without a helper of harness/paths.py"


def test_exceptions_are_needed() -> None:
    others = [one for one in ELSEWHERE if one != "harness/paths.py"]
    assert [one for one in others if not list(_direct(_parsed(one)))] == []


@pytest.mark.parametrize(
    ("code", "is_direct"),
    [
        ("path.write_text('x')", True),
        ("with whole_file(path) as part:\n    part.write_text('x')", False),
        ("with whole_file(path) as part:\n    other.write_text('x')", True),
        ("with whole_folder(path) as folder:\n    (folder / 'a').write_bytes(b'x')", False),
        ("with whole_file(path) as part, part.open('w') as file:\n    json.dump(x, file)", False),
        ("with open(path, 'w') as file:\n    pass", True),
        ("with open(path) as file:\n    pass", False),
        ("with path.open('rb') as file:\n    pass", False),
        ("with path.open(mode) as file:\n    pass", True),
        ("table.to_csv(path)", True),
        ("table.to_parquet(part)", True),
        ("buffer = BytesIO()\nfigure.savefig(buffer)", False),
        ("figure.savefig(path)", True),
        ("shutil.copyfile(a, b)", True),
        ("values.copy()", False),
    ],
)
def test_the_check_knows_what_writes(code: str, is_direct: bool) -> None:
    assert bool(list(_direct(ast.parse(code)))) is is_direct
