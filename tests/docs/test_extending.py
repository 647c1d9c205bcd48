"""The package on the page "Extending" is written, installed and used as the page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"```(bash|text file=(\S+))\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the page's files, and the package installed in `site`."""
    folder = tmp_path_factory.mktemp("extending")
    for _, name, content in BLOCK.findall((DOCS / "extending.md").read_text()):
        if name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
    install = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", "site", "./ladder"]
    subprocess.run([sys.executable, "-m", *install], cwd=folder, check=True, timeout=120)
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(one for one in (str(folder / "site"), os.environ.get("PYTHONPATH")) if one)
    environment = {**os.environ, "PYTHONPATH": path, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_the_package_does_what_the_page_says(folder: Path) -> None:
    commands = [
        shlex.split(line)
        for kind, _, content in BLOCK.findall((DOCS / "extending.md").read_text())
        if kind == "bash"
        for line in content.splitlines()
    ]
    assert len(commands) == 5
    said = []
    for words in commands:
        done = run(folder, sys.executable, "-m", *words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        said.append(done.stdout)
    assert "Ladder: 4 convolutions" in said[0]
    for table in said[2:4]:
        assert len(re.findall(r"\d+x\d+-\d+x\d+-\d+x\d+-\d+x\d+", table)) == 3


def test_the_space_is_one(folder: Path) -> None:
    code = (
        "from latlab.search_spaces import get\n"
        "space = get('ladder')\n"
        "assert len(list(space.enumerate())) == space.size == 1296\n"
        "for arch in space.sample(20, 0):\n"
        "    assert space.parse(arch.text) == arch and space.from_genes(arch.genes) == arch\n"
        "    module = space.build(arch)\n"
        "    params = sum(one.numel() for one in module.parameters())\n"
        "    assert params == sum(layer.params for layer in space.layers(arch)), arch\n"
    )
    done = run(folder, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
