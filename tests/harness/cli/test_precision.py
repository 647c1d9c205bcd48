"""Tests of --precision from the command line to the row in the store, and where a precision cannot be had."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from latlab.harness.cli.help_pages import PAGES
from latlab.harness.cli.main import main
from latlab.harness.store.sources import listing, precision_of
from latlab.harness.store.store import Store


def latlab(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["latlab", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), *capsys.readouterr()


def test_a_campaign_in_int8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, error = latlab(
        capsys, monkeypatch, "measure", "local", "--space", "nasbench201", "--count", "2", "--runtime", "tflite",
        "--precision", "int8", "--policy", "quick", "--json",
    )  # fmt: skip
    assert code == 0, error
    rows = [json.loads(line) for line in said.splitlines()]
    assert [row["target"] for row in rows if "target" in row] == ["local/tflite/cpu/int8/t1/b1"] * 2
    store = Store(tmp_path / "latlab.db")
    table = store.table()
    assert list(table["status"]) == ["ok", "ok"]
    for artifact in map(json.loads, table["artifact"]):
        assert artifact["parity"]["layers"]["steps"] <= artifact["parity"]["layers"]["tolerance"]
    assert list(listing(store)["precision"]) == ["int8"]
    store.close()


@pytest.mark.parametrize("command", ["measure", "onboard", "embed", "sustain"])
def test_a_precision_that_a_runtime_lacks_is_one_error(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arch = ["--arch", "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"]
    arch = arch if command in ("measure", "sustain") else []
    code, _, error = latlab(
        capsys, monkeypatch, command, "local", "--space", "nasbench201", *arch, "--runtime", "tflite",
        "--precision", "bf16",
    )  # fmt: skip
    assert code == 2
    assert error == (
        "latlab: tflite has no bf16: choose fp32, fp16 or int8\nbf16 can be had with the runtime torchscript.\n"
        f"`latlab help {PAGES[command]}` has more.\n"
    )


def test_precisions_in_the_inventory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = "devices:\n  toy:\n    transport: simulated\n    kind: ideal\n    targets:\n      - {}\n"
    (tmp_path / "inventory.yaml").write_text(entry.format("{runtime: tflite, precision: [fp32, int8]}"))
    code, said, _ = latlab(capsys, monkeypatch, "devices", "--json")
    assert code == 0
    assert "tflite/cpu/int8/t1/b1" in said
    (tmp_path / "inventory.yaml").write_text(entry.format("{runtime: torchscript, precision: int8}"))
    code, _, error = latlab(capsys, monkeypatch, "devices")
    assert code == 2
    assert "inventory.yaml" in error
    assert "torchscript has no int8" in error


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("embedded_tpu_edge_tpu_int8", "int8"),
        ("desktop_gpu_gtx_1080ti_fp32", "fp32"),
        ("mobile-dsp-snapdragon-675-hexagon-685-int8", "int8"),
        ("pi4/tflite/cpu/fp16/t1/b1", "fp16"),
        ("int8camera", None),
        ("pixel3", None),
    ],
)
def test_the_precision_that_a_source_states(name: str, precision: str | None) -> None:
    assert precision_of(name) == precision
