"""Tests of the code as text: it unpickles and runs nothing from elsewhere, and benchmarks import what there is."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path for folder in ("agents", "harness", "predictors", "search_spaces") for path in (ROOT / folder).rglob("*.py")
)
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle"}
BUILT_IN = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen", "pd.read_pickle",
    "pandas.read_pickle", "subprocess.getoutput", "subprocess.getstatusoutput", "zipfile.ZipFile.extractall",
    "tarfile.open", "shutil.unpack_archive",
}  # fmt: skip
KEYWORDS = {("shell", True), ("allow_pickle", True), ("weights_only", False)}


def dangers(tree: ast.Module) -> list[str]:
    """Return the calls in a source file that no code here may make."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [f"import {one.name}" for one in node.names if one.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            found.append(f"from {node.module} import")
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            restricted = name == "torch.load" and any(
                one.arg == "weights_only" and isinstance(one.value, ast.Constant) and one.value.value is True
                for one in node.keywords
            )
            listed = name in CALLS and not restricted
            found += [name] * (listed or (isinstance(node.func, ast.Name) and name in BUILT_IN))
            found += [
                f"{name}({keyword.arg}={keyword.value.value})"
                for keyword in node.keywords
                if isinstance(keyword.value, ast.Constant) and (keyword.arg, keyword.value.value) in KEYWORDS
            ]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_or_run(path: Path) -> None:
    assert dangers(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_what_would_be_found() -> None:
    code = (
        "import pickle\nfrom marshal import loads\neval('1')\ntorch.load(f)\nyaml.load(f)\n"
        "subprocess.run('x', shell=True)\nnp.load(f, allow_pickle=True)\nre.compile('x')\ntorch.jit.load(f)\n"
        "torch.load(f, weights_only=True)\n"
    )
    assert len(dangers(ast.parse(code))) == 7


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_import_what_there_is(path: Path) -> None:
    """Nothing else runs most of these scripts, so what is renamed could break them unseen.

    Nor does one hide a module of Python: PyTorch imports `profile`, and would find a script of that name first.
    """
    assert path.stem not in sys.stdlib_module_names
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("latlab"):
            assert node.module is not None
            module = importlib.import_module(node.module)
            inside = {found.name for found in pkgutil.iter_modules(getattr(module, "__path__", ()))}
            missing = [one.name for one in node.names if one.name not in inside and not hasattr(module, one.name)]
            assert not missing, f"{node.module} has no {missing}"
