"""Figure: how the code is built. Counts loose modules, cycles between modules and imports that go up.

    python benchmarks/structure.py [--commit 2bc7783]

An import counts wherever it stands: at the top of a module, in a function, under TYPE_CHECKING. A cycle is a set of
modules that can all reach each other. An import goes up where it leads to a package on a higher floor, or to a
neighbour on its own floor; the floors are those of the layer contracts in pyproject.toml. With `--commit`, the files
of that commit are counted, by its own layout; floors are today's, so imports of a layout without them are not counted.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx
from common import RESULTS, save, show

ROOT = Path(__file__).parents[1]
FOLDERS = ("harness", "agents", "predictors", "search_spaces")
ENTRY = ("__init__", "__main__")


def modules(root: Path) -> dict[str, Path]:
    """Dotted names of all modules, and their files."""
    found = {}
    for folder in FOLDERS:
        for path in (root / folder).rglob("*.py"):
            parts = ("latlab", *path.relative_to(root).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path) -> Iterator[str]:
    """What a module imports, as dotted names that may end in a class or a function."""
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package[: len(package) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            yield from (f"{base}.{one.name}" for one in node.names)


def graph(root: Path) -> networkx.DiGraph[str]:
    """Modules and their imports of one another; a module's own parent package does not count."""
    known = modules(root)
    result: networkx.DiGraph[str] = networkx.DiGraph()
    result.add_nodes_from(known)
    for name, path in known.items():
        for target in imported(name, path):
            while target and target not in known:
                target = target.rpartition(".")[0]
            if target and target != name and not name.startswith(f"{target}."):
                result.add_edge(name, target)
    return result


def floors() -> list[dict[str, int]]:
    """For each layer contract with a container, the floor of each package; the highest number is the ground floor."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    found = []
    for contract in contracts:
        for container in contract.get("containers", ()) if contract["type"] == "layers" else ():
            found.append(
                {
                    f"{container}.{name.strip()}": floor
                    for floor, layer in enumerate(contract["layers"])
                    for name in layer.replace(":", "|").split("|")
                }
            )
    return found


def upward(imports: networkx.DiGraph[str]) -> list[tuple[str, str]]:
    """Imports from one package to another on the same or a higher floor."""

    def place(module: str, of: dict[str, int]) -> tuple[str, int] | None:
        return next(((one, floor) for one, floor in of.items() if module == one or module.startswith(f"{one}.")), None)

    found = []
    for of in floors():
        for start, end in imports.edges:
            first, last = place(start, of), place(end, of)
            if first and last and first[0] != last[0] and last[1] <= first[1]:
                found.append((start, end))
    return found


def figures(root: Path, name: str, count_upward: bool) -> dict[str, Any]:
    """One row of the table."""
    imports = graph(root)
    cycles = [one for one in networkx.strongly_connected_components(imports) if len(one) > 1]
    lengths = [len(path.read_text(encoding="utf-8").splitlines()) for path in modules(root).values()]
    return {
        "code of": name,
        "modules": len(lengths),
        "loose in harness/": len([one for one in (root / "harness").glob("*.py") if one.stem not in ENTRY]),
        "cycles": len(cycles),
        "modules in cycles": sum(map(len, cycles)),
        "upward imports": len(upward(imports)) if count_upward else None,
        "longest module": max(lengths),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--commit", default="2bc7783", help="the commit to compare with")
    parser.add_argument("--out", type=Path, default=RESULTS / "structure.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = subprocess.run(
            ["git", "archive", arguments.commit, *FOLDERS], cwd=ROOT, capture_output=True, check=True
        ).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=files, check=True)
        rows = [figures(Path(folder), arguments.commit, count_upward=False), figures(ROOT, "today", count_upward=True)]
    show("Structure", rows)
    for start, end in upward(graph(ROOT)):
        print(f"upward: {start} -> {end}")
    save(arguments.out, {"rows": rows})


if __name__ == "__main__":
    main()
