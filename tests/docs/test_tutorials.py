"""The tutorials of docs/tutorials.md: every file is written, every command run and every program executed, in order."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from latlab.harness.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "tutorials.md"
BLOCK = re.compile(r"```(bash|python|text file=(\S+))\n(.*?)```", re.DOTALL)


def test_every_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text()
    assert page.count("\n## ") == 10
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
    made = {"pi-out/report.html", "pi-out/predictor/card.json", "both.db", "fast.csv", "devices.db", "labels.pdf"}
    assert all(Path(one).stat().st_size for one in made)
