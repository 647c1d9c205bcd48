"""Tests of the command line as a person uses it: its output, its exit codes, one clear error for every mistake."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from waiting import wait_until

from latlab.harness import Lab
from latlab.harness.cli.interruption import ending_orderly, interruption
from latlab.harness.cli.main import main
from latlab.harness.store.store import Store
from latlab.predictors import DEFAULT

CONV = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
SMALL = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
TARGET = "local/onnxruntime/cpu/fp32/t1/b1"


def latlab(*words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["latlab", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


class Shell:
    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._fixtures = {"capsys": capsys, "monkeypatch": monkeypatch}

    def __call__(self, *words: str) -> tuple[int, str, str]:
        return latlab(*words, **self._fixtures)  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(capsys, monkeypatch)


@pytest.fixture(scope="module")
def onboarded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store of a small onboarding."""
    folder = tmp_path_factory.mktemp("onboarded")
    Lab(folder / "latlab.db").onboard("local", space="nasbench201", budget=5, holdout=4, out=folder / "out")
    return folder


# What works


def test_onboard_says_what_it_promises(run: Shell, onboarded: Path) -> None:
    store, out = str(onboarded / "latlab.db"), str(onboarded / "out")
    code, said, _ = run("onboard", "local", "--space", "nasbench201", "--budget", "6", "--holdout", "4",
                        "--store", store, "--out", out, "--json")  # fmt: skip
    result = json.loads(said)
    assert code == 0
    assert result["target"] == TARGET
    assert (result["measured"], result["failed"]) == (6, 0)
    promised = {"target", "measured", "failed", "holdout_spearman", "holdout_mape_percent",
                "holdout_within_10_percent", "wall_s", "timing_share", "report"}  # fmt: skip
    assert promised <= set(result)
    assert 0 < result["timing_share"] < 1
    assert Path(result["report"]).read_text().startswith("<!doctype html>") or Path(result["report"]).stat().st_size
    table = pd.read_parquet(onboarded / "out" / "latency_table.parquet")
    assert len(table) == table["arch"].nunique() == 15625
    assert table["measured"].sum() == 6 + 4, "with the hold-out"
    assert (table["lower_ms"] < table["upper_ms"]).all()
    assert len(pd.read_csv(onboarded / "out" / "latency_table.csv")) == 15625
    assert (onboarded / "out" / "predictor" / f"{DEFAULT}.safetensors").exists()


def test_onboard_in_words(run: Shell, onboarded: Path) -> None:
    code, said, _ = run("onboard", "local", "--space", "nasbench201", "--budget", "5", "--store",
                        str(onboarded / "latlab.db"), "--out", str(onboarded / "out"))  # fmt: skip
    assert code == 0
    assert "report" in said
    assert TARGET in said


def test_measure_as_json_lines(run: Shell) -> None:
    code, said, _ = run(
        "measure", "local", "--space", "nasbench201", "--arch", CONV, "--arch", SMALL, "--raw", "--json"
    )
    rows = [json.loads(line) for line in said.splitlines()]
    assert code == 0
    assert [row["arch"] for row in rows] == [CONV, SMALL]
    assert {row["status"] for row in rows} == {"ok"}
    assert all(row["latency_ms"] > 0 and len(row["samples_ns"]) in (27, 36, 45) for row in rows)
    code, said, _ = run("measure", "local", "--space", "nasbench201", "--arch", CONV, "--json")
    assert "samples_ns" not in json.loads(said)


def test_several_architectures_after_one_option(run: Shell) -> None:
    code, said, _ = run("measure", "local", "--arch", CONV, SMALL, "--space", "nasbench201", "--json")
    assert code == 0
    assert [json.loads(line)["arch"] for line in said.splitlines()] == [CONV, SMALL]


def test_measure_from_a_file(run: Shell, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"# mine\n{SMALL}\n\n{CONV}\n")
    code, said, _ = run("measure", "local", "--space", "nasbench201", "--file", "list.txt")
    assert code == 0
    assert "2 measured, 0 failed" in said


def test_predict_show_export_report(run: Shell, onboarded: Path, tmp_path: Path) -> None:
    store = str(onboarded / "latlab.db")
    code, said, _ = run("predict", "--store", store, "--target", TARGET, "--arch", CONV, "--arch", SMALL, "--json")
    rows = [json.loads(line) for line in said.splitlines()]
    assert code == 0
    assert rows[0]["latency_ms"] > rows[1]["latency_ms"] > 0
    code, said, _ = run("predict", "--store", store, "--target", TARGET, "--all", "--json")
    assert len(said.splitlines()) == 15625
    code, said, _ = run("show", store)
    assert code == 0
    assert TARGET in said
    assert f"onboard:{DEFAULT}" in said
    assert json.loads(run("show", store, "--json")[1])["campaigns"][0]["ok"] >= 5
    assert run("export", "--store", store, "--format", "csv", "--out", "t.csv", "--raw")[0] == 0
    assert run("export", "--store", store, "--format", "parquet", "--out", "t.parquet")[0] == 0
    csv, parquet = pd.read_csv(tmp_path / "t.csv"), pd.read_parquet(tmp_path / "t.parquet")
    assert len(csv) == len(parquet) >= 13
    assert csv["latency_ms"].tolist() == pytest.approx(parquet["latency_ms"].tolist())
    assert 3 <= len(json.loads(csv["passes"][0])) <= 5
    assert run("export", "--store", store, "--out", "x.csv", "--target", "none")[0] == 2
    assert run("report", "--store", store, "--out", "/proc/r.html")[0] == 2
    assert run("report", "--store", store, "--out", str(tmp_path))[0] == 2
    assert run("report", "--store", store, "--out", "r.html")[0] == 0
    assert run("report", "--store", store, "--target", "local", "--out", "r.html")[0] == 0, "its only target"
    assert run("predict", "--store", store, "--target", "local", "--arch", CONV)[0] == 0
    code, _, said = run("report", "--store", store, "--target", "mars", "--out", "r.html")
    assert code == 2
    assert f"--target {TARGET} --space nasbench201" in " ".join(said.replace("│", " ").split())
    assert (tmp_path / "r.html").stat().st_size > 10_000


def test_embed(run: Shell, tmp_path: Path) -> None:
    code, said, _ = run("embed", "local", "--space", "nasbench201", "--out", "e.json", "--json")
    assert code == 0
    assert json.loads(said) == json.loads((tmp_path / "e.json").read_text())
    assert len(json.loads(said)["references"]) == 10


def test_doctor_in_words_of_several_devices(run: Shell, tmp_path: Path) -> None:
    """Each has its lines and a verdict; one that fails is enough to fail the command."""
    devices = "  toy: {transport: simulated, kind: ideal}\n  gone: {transport: adb, host: 127.0.0.1, port: 9}\n"
    (tmp_path / "inventory.yaml").write_text(f"devices:\n{devices}")
    code, said, _ = run("doctor", "all")
    assert code == 1
    assert (
        said.index("toy") < said.index("fit to measure on") < said.index("gone") < said.index("not fit to measure on")
    )
    assert run("doctor", "toy")[0] == 0
    lines = run("doctor", "all", "--json")[1].splitlines()
    assert json.loads(lines[0])["controller"][0]["check"] == "exported networks"
    assert [(json.loads(line)["device"], json.loads(line)["state"]) for line in lines] == [
        ("toy", "ok"),
        ("gone", "failed"),
    ]


def test_init_devices_measure(run: Shell, tmp_path: Path) -> None:
    """What a newcomer does first works without any hardware."""
    assert run("init")[0] == 0
    assert run("init")[0] == 2
    assert run("init", "--schema")[0] == 0
    code, said, _ = run("devices", "--json")
    assert code == 0
    assert [(one["device"], one["state"], one["measured"]) for one in json.loads(said)] == [
        ("local", "ready", 0),
        ("toy", "ready", 0),
    ]
    assert run("measure", "all", "--space", "nasbench201", "--arch", CONV)[0] == 0
    code, said, _ = run("devices")
    assert code == 0
    assert "just now" in said
    assert {one["measured"] for one in json.loads(run("devices", "--no-probe", "--json")[1])} == {1}


def test_measured_is_measured_hold_out_or_not(run: Shell, onboarded: Path) -> None:
    store, table = str(onboarded / "latlab.db"), pd.read_csv(onboarded / "out" / "latency_table.csv")
    assert run("predict", "--store", store, "--target", TARGET, "--all", "--out", "all.csv")[0] == 0
    predicted = pd.read_csv("all.csv")
    assert set(predicted[predicted["measured"]]["arch"]) == set(table[table["measured"]]["arch"])
    assert predicted["latency_ms"].astype(str).str.len().max() < 12, "no more digits than the table of an onboarding"


def test_a_terminal_that_lacks_characters(run: Shell, onboarded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", plain)
    code, _, said = run("quality", str(onboarded / "latlab.db"))
    plain.flush()
    assert code == 0, said
    assert b"95 % intervals ? " in plain.buffer.getvalue()  # type: ignore[attr-defined]


def test_spaces(run: Shell) -> None:
    code, said, _ = run("spaces", "--json")
    assert code == 0
    assert {s["name"] for s in json.loads(said)} >= {"nasbench201", "fbnet", "fbnet-imagenet", "ofa-mobilenetv3"}
    assert "nasbench201" in run("spaces")[1]


# What is wrong


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("onboard local --space atlantis", "unknown search space 'atlantis'"),
        ("onboard mars --space nasbench201", "device 'mars' is not in the inventory"),
        ("onboard local --space nasbench201 --budget 0", "budget"),
        ("onboard local --space nasbench201 --threads 0", "threads"),
        ("onboard local --space nasbench201 --batch-size -1", "batch-size"),
        ("onboard local --space nasbench201 --runtime magic", "runtime"),
        ("onboard local --space nasbench201 --policy magic", "unknown policy 'magic'"),
        ("onboard local --space nasbench201 --predictor magic", "unknown predictor 'magic'"),
        ("onboard local --space nasbench201 --budget 15000 --holdout 1000", "has only 15625"),
        ("simulate --table none.csv --space nasbench201 --target a", "no such file"),
        ("simulate --table none.csv --space nasbench201 --target a --noise -1", "--noise takes a percentage"),
        ("simulate --table none.csv --space nasbench201 --target a --until soon", "'soon': that is no goal"),
        ("simulate --table none.csv --space nasbench201 --target a --near 0", "takes a time above 0"),
        ("onboard local --space nasbench201 --until soon", "'soon': that is no goal"),
        ("onboard local --space nasbench201 --until=spearman=2", "between 0 and 1"),
        ("onboard local --space nasbench201 --until 0min", "a time above 0"),
        ("onboard local --space nasbench201 --near 0", "takes a time above 0"),
        ("onboard local --space nasbench201 --out /proc/nothing", "cannot make the folder"),
        ("onboard local", "space"),
        ("measure local", "say what to measure"),
        ("measure local --space nasbench201", "say which architectures"),
        ("measure local --space nasbench201 --count 3 --arch x", "in one way"),
        ("measure local --space nasbench201 --count 20000", "between 1 and that"),
        ("measure local --space nasbench201 --arch nonsense", "nonsense"),
        ("measure local --space fbnet --arch 1_2_3", "1_2_3"),
        ("measure local --space nasbench201 --arch 11982", "Only `latlab import` reads genes and numbers"),
        ("measure local --space nasbench201 --arch [3,3,0,2,4,3]", "These are genes. As a string: |"),
        ("measure local --space ofa-mobilenetv3 --arch r100|k3e3", "r100"),
        ("measure local --space nasbench201 --file none.txt", "cannot read none.txt"),
        ("measure local --model none.onnx", "no model file none.onnx"),
        ("measure local --model net.onnx --space nasbench201", "--model stands alone"),
        ("measure local --model a:b --input 1xtwo", "is not a shape"),
        ("measure local --space nasbench201 --count 1 --inventory none.yaml", "cannot read the inventory none.yaml"),
        ("measure local --space nasbench201 --count 1 --store nowhere/x.db", "does not exist"),
        ("predict --target nonsense --all --store s.db", "there is no store s.db"),
        ("predict --target x", "say what to predict"),
        ("import none.csv --as-target a", "there is no file none.csv"),
        ("show none.db", "there is no store none.db"),
        ("export --out x.csv --store none.db", "there is no store"),
        ("export --out x.txt --store none.db", "does not say what to write"),
        ("export --out x.csv --format parquet --store none.db", "contradicts the name"),
        ("measure local --space nasbench201 --count 1 --threads 1000", "would take turns"),
        ("report --store none.db", "there is no store"),
        ("embed local --space atlantis", "unknown search space"),
        ("doctor mars", "not in the inventory"),
        ("doctor all", "there are none"),
        ("devices --inventory none.yaml", "cannot read the inventory none.yaml"),
        ("init --out nowhere/inventory.yaml", "cannot write nowhere/inventory.yaml"),
        ("dance", "dance"),
    ],
)
def test_bad_input_is_one_clear_error_and_exit_code_2(run: Shell, words: str, message: str) -> None:
    code, _, said = run(*words.split())
    assert code == 2
    assert message in " ".join(said.replace("│", " ").split())
    assert "Traceback" not in said


def test_malformed_files_name_their_line(run: Shell, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{CONV}\nnonsense\n")
    code, _, said = run("measure", "local", "--space", "nasbench201", "--file", "list.txt")
    assert (code, "list.txt, line 2" in said) == (2, True)
    (tmp_path / "inventory.yaml").write_text("devices:\n  local:\n    transport: 7\n")
    code, _, said = run("measure", "local", "--space", "nasbench201", "--count", "1")
    assert (code, "inventory.yaml, line 3" in said) == (2, True)


def test_corrupt_store(run: Shell, tmp_path: Path) -> None:
    (tmp_path / "latlab.db").write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    for words in ("show", "measure local --space nasbench201 --count 1", f"predict --target {TARGET} --all"):
        code, _, said = run(*words.split())
        assert code == 2
        assert "latlab.db" in said


def test_runtime_that_is_not_installed(run: Shell, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    (tmp_path / "inventory.yaml").write_text(f"devices: {{bare: {{python: {bare}/bin/python, work: {tmp_path}/w}}}}")
    code, _, said = run("measure", "bare", "--space", "nasbench201", "--count", "1")
    assert code == 2
    assert "onnxruntime is not installed on bare" in said


def test_a_python_that_is_not_there(run: Shell, tmp_path: Path) -> None:
    (tmp_path / "inventory.yaml").write_text("devices: {gone: {python: /no/such/python}}")
    code, _, said = run("measure", "gone", "--space", "nasbench201", "--count", "1")
    assert code in (1, 2)
    assert "gone" in said
    assert "/no/such/python" in said


@pytest.mark.parametrize("where", ["LATLAB_CACHE", "work"])
def test_folders_that_cannot_be_used(run: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    if where == "LATLAB_CACHE":
        monkeypatch.setenv("LATLAB_CACHE", str(tmp_path / "file" / "cache"))
    else:
        (tmp_path / "inventory.yaml").write_text(f"devices: {{local: {{work: {tmp_path}/file/work}}}}")
    code, _, said = run("measure", "local", "--space", "nasbench201", "--count", "1")
    assert code == 2
    assert str(tmp_path / "file") in said
    assert "Traceback" not in said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small file system")
@pytest.mark.slow
def test_disk_full_on_the_device(run: Shell, tmp_path: Path) -> None:
    """Not the networks' fault: one clear error, and no rows that say they crashed."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(small)]).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        (tmp_path / "inventory.yaml").write_text(f"devices: {{local: {{work: {small}}}}}")
        code, _, said = run("measure", "local", "--space", "nasbench201", "--count", "30")
        assert code == 1
        assert "No space left" in said
        assert set(Lab(tmp_path / "latlab.db").store.table()["status"]) <= {"ok", "device_lost"}
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_affinity_that_is_not_there(run: Shell, tmp_path: Path) -> None:
    (tmp_path / "inventory.yaml").write_text("devices: {local: {affinity: [3000]}}")
    code, _, said = run("measure", "local", "--space", "nasbench201", "--count", "1")
    assert (code, "affinity [3000]" in said) == (2, True)


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends it at once, says that nothing is lost, and leaves no worker behind. Others: test_signals.py."""
    process = _measuring(tmp_path)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "latlab: interrupted" in said
    assert "the same command continues" in said
    assert "Traceback" not in said


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    process = _measuring(tmp_path)
    process.send_signal(signal.SIGTERM)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
    assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)  # the second came in time, or too late
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_a_destructor_is_not_lost(number: signal.Signals) -> None:
    """Python drops what is raised there."""

    class Leaving:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def leave() -> None:
        with ending_orderly():
            Leaving()
            time.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert interruption.exit_code == 128 + number
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the second signal would have been left to the system


def test_a_signal_that_is_dropped_and_arrives() -> None:
    """As in asyncio, which keeps it in a task that nobody asks, and raises it as well: it comes once."""
    program = """
import signal, sys, time
from latlab.harness.cli.interruption import ending_orderly
class Leaving:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
with ending_orderly() as interruption:
    try:
        Leaving()
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        interruption.arrived()
        print("ended")
        time.sleep(0.2)
sys.exit(interruption.exit_code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "ended\n", "")


def test_a_signal_that_a_library_logs() -> None:
    """It ends the command without a traceback; other errors are logged as ever."""
    program = """
import logging, signal
from latlab.harness.cli.interruption import ending_orderly
def close(number):
    try:
        signal.raise_signal(number) if number else 1 / 0
    except BaseException as error:
        logging.getLogger("library").error("Exception closing connection", exc_info=True)
        if not isinstance(error, Exception):
            raise
try:
    with ending_orderly():
        close(0)
        close(signal.SIGTERM)
except KeyboardInterrupt:
    print("ended")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ended"]
    assert done.stderr.count("Traceback") == 1
    assert "ZeroDivisionError" in done.stderr


def test_signals_that_are_ignored_stay_so(tmp_path: Path) -> None:
    """As `nohup` starts it, it does not end with its terminal."""
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    program += "from latlab.harness.cli.interruption import ending_orderly\n"
    program += "with ending_orderly(): print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)\n"
    program += "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def _measuring(folder: Path) -> subprocess.Popen[str]:
    """Return a `latlab measure` that has finished at least one row."""
    command = [sys.executable, "-m", "latlab.harness", "measure", "local", "--space", "nasbench201", "--count", "300"]
    process = subprocess.Popen([*command, "--store", str(folder / "s.db")], stderr=subprocess.PIPE, text=True)

    def has_a_row() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return (folder / "s.db").exists() and not Store(folder / "s.db").table().empty

    wait_until(has_a_row, "nothing is measured", 120)
    return process


def test_errors_as_json(run: Shell) -> None:
    code, said, _ = run("onboard", "local", "--space", "atlantis", "--json")
    assert code == 2
    assert "atlantis" in json.loads(said)["error"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small file system")
@pytest.mark.slow
def test_disk_full(run: Shell, tmp_path: Path) -> None:
    """A real full disk under the store: one clear error, and what was measured before is kept."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)]).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        words = ("measure", "local", "--space", "nasbench201", "--count", "60", "--store", str(small / "latlab.db"))
        code, _, said = run(*words)
        assert code == 2
        assert "latlab.db" in said
        assert "full" in said
        assert "Traceback" not in said
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_help_is_quick_because_it_imports_little() -> None:
    code = (
        "import sys; from latlab.harness.cli.main import app; import typer.main; typer.main.get_command(app)\n"
        "heavy = {'torch', 'numpy', 'pandas', 'onnx', 'sqlalchemy', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
