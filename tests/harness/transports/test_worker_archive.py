"""The worker as one file."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import latlab.agents
from latlab.harness.transports import worker_archive as zipapp
from latlab.harness.transports.worker_archive import worker_program


def test_the_same_sources_give_the_same_bytes() -> None:
    first = worker_program()
    worker_program.cache_clear()
    assert worker_program() == first
    assert hashlib.sha256(first.content).hexdigest()[:16] in first.name


def test_nothing_of_this_machine_is_in_it() -> None:
    with zipfile.ZipFile(io.BytesIO(worker_program().content)) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.create_system for entry in entries} == {3}
    assert not [entry.filename for entry in entries if not entry.filename.endswith(".py")]
    assert {"__main__.py", "latlab/agents/worker.py", "latlab/agents/runtimes/tflite.py"} <= {
        entry.filename for entry in entries
    }


def test_a_change_of_source_changes_the_name(monkeypatch: object) -> None:
    first = worker_program()
    worker_program.cache_clear()
    original = zipapp._MAIN
    zipapp._MAIN = original + "\n"
    try:
        assert worker_program().name != first.name
    finally:
        zipapp._MAIN = original
        worker_program.cache_clear()


def test_it_needs_the_standard_library_alone_and_starts_quickly(tmp_path: Path) -> None:
    """With -S there are no site-packages: whatever is imported comes from Python or from the file."""
    path = tmp_path / worker_program().name
    path.write_bytes(worker_program().content)
    program = (
        "import sys, time; start = time.perf_counter(); sys.path.insert(0, sys.argv[1]); import latlab.agents.worker; "
        "print(time.perf_counter() - start, latlab.agents.worker.__file__, *sys.modules)"
    )
    command = [sys.executable, "-S", "-E", "-c", program, str(path)]
    tried = [subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path) for _ in range(3)]
    output = min((one.stdout.split() for one in tried), key=lambda words: float(words[0]))
    assert float(output[0]) < 1.0  # about .05 on an idle machine
    assert output[1].startswith(str(path))
    assert not {"numpy", "torch", "onnxruntime", "ai_edge_litert", "tflite_runtime", "asyncio"} & set(output[2:])


def test_it_is_written_in_python_3_9() -> None:
    with zipfile.ZipFile(io.BytesIO(worker_program().content)) as archive:
        for name in archive.namelist():
            ast.parse(archive.read(name), name, feature_version=(3, 9))


def test_an_installed_latlab_does_not_mix_in(tmp_path: Path) -> None:
    """The device may have another version of latlab: the file's own is what runs."""
    path = tmp_path / worker_program().name
    path.write_bytes(worker_program().content)
    program = "import latlab, latlab.agents; print(latlab.__file__, latlab.agents.__file__)"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(path)!r}); {program}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert all(one.startswith(str(path)) for one in output)


def test_a_comment_in_the_controller_changes_no_fingerprint(tmp_path: Path) -> None:
    """A fingerprint has the hash of the program on the device: what only the controller runs is not in it."""
    root = Path(latlab.agents.__file__).parents[1]
    package = tmp_path / "latlab"
    shutil.copytree(root / "agents", package / "agents", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(root / "harness", package / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").touch()
    program = "from latlab.harness.transports.worker_archive import worker_program; print(worker_program().name)"

    def name() -> str:
        command = [sys.executable, "-c", program]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
        return run.stdout

    def comment(*paths: str) -> None:
        for path in paths:
            with (package / path).open("a") as file:
                file.write("# a comment\n")

    before = name()
    comment("harness/statistics/estimators.py", "harness/statistics/verdicts.py", "harness/timing_policy.py")
    assert name() == before
    comment("agents/execution/stopping.py")
    assert name() != before
