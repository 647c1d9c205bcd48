"""The tutorials of docs: every file is written, every command run and every program executed, in order."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from latlab.harness.cli.main import main

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"```(bash|python|text file=(\S+))\n(.*?)```", re.DOTALL)

NIGHT = "latlab predict --target pi --space nasbench201 --all --top 3 --store night.db"
PROMISED = {
    "latlab show night.db": "provisional",
    NIGHT: "provisional",
    "latlab quality devices.db": "Noisiest: noisy/onnxruntime/cpu/fp32/t1/b1, whose labels are typically off by",
    "latlab store info both.db": "phone/onnxruntime/cpu/fp32/t1/b1",
    "latlab predict --target phone --space nasbench201 --all --top 3 --store both.db": "pi/onnxruntime/cpu/fp32/t1/b1",
}
"""What the output of a command must show, because the page says so: the first time, if it stands there twice."""


def follow(
    page: str, promises: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Do what a page says, in the current folder."""
    promised = dict(promises)
    for kind, name, content in BLOCK.findall(page):
        if name:
            Path(name).write_text(content)
        elif kind == "python":
            run = subprocess.run([sys.executable, "-c", content], capture_output=True, text=True)
            assert run.returncode == 0, f"{content}: {run.stderr}"
        else:
            for command in content.splitlines():
                words = shlex.split(command)
                assert words[0] == "latlab"
                monkeypatch.setattr(sys, "argv", words)
                with pytest.raises(SystemExit) as end:
                    main()
                said = capsys.readouterr()
                assert not end.value.code, f"{command}: {said.out}{said.err}"
                assert promised.pop(command, "") in said.out + said.err, f"{command}: {said.out}{said.err}"
    assert not promised, "these commands are not in the page any more"


def test_the_page_of_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = "latlab search --target pi --space nasbench201 --max-latency-ms 12"
    own = f"{found} --accuracy my_accuracy:accuracy"
    promised = {
        f"{own} --budget 8 --out found": "no labels in nasbench201 yet",
        f"{own} --budget 10 --out found": "continuing the search",
        f"{found} --accuracy accuracies.csv --candidates candidates.txt --no-measure": "Nothing was measured",
    }
    follow((DOCS / "network-search.md").read_text(), promised, monkeypatch, capsys)
    result = json.loads(Path("found/result.json").read_text())
    assert result["winner"]["measured"]
    assert result["winner"]["latencies"][0]["measured_upper_ms"] < 12.5
    assert result["costs"]["measured"] + result["costs"]["onboarded"] <= 10


def test_every_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "tutorials.md").read_text()
    assert page.count("\n## ") == 10
    follow(page, PROMISED, monkeypatch, capsys)
    fast = pd.read_csv("fast.csv")
    assert 10 < len(fast) < 15_000
    assert fast["latency_ms"].max() < 3
    assert fast["measured"].sum() <= 16
    made = {"pi-out/report.html", "pi-out/predictor/card.json", "both.db", "fast.csv", "devices.db", "labels.pdf"}
    assert all(Path(one).stat().st_size for one in made)


def test_the_programs_of_the_first_page(tmp_path: Path) -> None:
    """On a simulated device and with fewer networks, so that it takes seconds."""
    (tmp_path / "inventory.yaml").write_text("devices:\n  pi: {transport: simulated, kind: pi4, pace: 0}\n")
    page = (DOCS / "start.md").read_text()
    for kind, _, content in BLOCK.findall(page):
        if kind == "python":
            for given, quick in (('"local', '"pi'), ("budget=20", "budget=6"), ("count=10", "count=2")):
                assert given in page
                content = content.replace(given, quick)
            run = subprocess.run([sys.executable, "-c", content], cwd=tmp_path, capture_output=True, text=True)
            assert run.returncode == 0, f"{content}: {run.stderr}"
