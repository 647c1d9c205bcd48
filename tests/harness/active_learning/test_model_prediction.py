"""Any model is predicted from measured operators; the whole way on a simulated device."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from waiting import wait_until

from latlab.harness import Lab
from latlab.harness.active_learning.target_labels import target_labels
from latlab.harness.cli.main import main
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import get_exporter
from latlab.harness.models import kernels_apart as apart
from latlab.harness.models.input_options import InputOptions
from latlab.harness.models.kernels_apart import kernels_apart
from latlab.search_spaces import get

TOY = "toy/onnxruntime/cpu/fp32/t1/b1"
SPACE = get("operators")
BUDGET = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store of an onboarding on operators, and a model."""
    folder = tmp_path_factory.mktemp("operators")
    (folder / "inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: ideal}\n")
    result = lab_in(folder).onboard(TOY, space="operators", budget=BUDGET, out=folder / "out")
    assert result.measured == BUDGET
    arch = SPACE.parse("bottleneck|c64|o128|s28|k3|t1|x2")
    get_exporter("onnx").export(SPACE.build(arch), torch.zeros(1, *SPACE.input_shape(arch)), folder / "net.onnx")
    return folder


def lab_in(folder: Path, store: str = "latlab.db") -> Lab:
    return Lab(folder / store, inventory=folder / "inventory.yaml", cache=folder / "cache")


def test_the_design_is_measured_in_its_order(folder: Path) -> None:
    assert set(lab_in(folder).store.table()["arch"]) == {arch.text for arch in SPACE.designed()[:BUDGET]}


def test_a_model_file_is_predicted(folder: Path) -> None:
    lab = lab_in(folder)
    found = lab.predict_model("toy", folder / "net.onnx")
    measured = (
        lab.measure(TOY, space="operators", archs=["bottleneck|c64|o128|s28|k3|t1|x2"]).rows["latency_ms"].iloc[-1]
    )
    assert found.target == TOY
    assert found.simulated
    assert found.labels == {"operators": BUDGET}
    assert found.lower_ms < measured < found.upper_ms
    assert 0.5 < found.latency_ms / measured < 2
    assert max(found.shares, key=lambda kind: found.shares[kind]) == "pointwise"
    assert found.macs == sum(layer.macs for layer in SPACE.layers(SPACE.parse("bottleneck|c64|o128|s28|k3|t1|x2")))
    assert not found.unseen
    assert found.remarks == ()


def test_a_module_is_a_model_and_what_was_never_measured_is_named(folder: Path) -> None:
    module = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Softmax(1), nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 1))
    found = lab_in(folder).predict_model(TOY, module, inputs=InputOptions(inputs=("1x8x16x16",)))
    assert set(found.unseen) == {"Resize"}
    assert "never measured" in found.remarks[0]
    assert found.upper_ms / found.lower_ms > 2


def test_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def said(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["latlab", "predict", "--store", str(folder / "latlab.db"), *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    monkeypatch.setenv("LATLAB_CACHE", str(folder / "other cache"))
    monkeypatch.setattr("latlab.harness.lab.base.cache_folder", lambda: folder / "cache")
    model = str(folder / "net.onnx")
    code, out, _ = said("--target", TOY, "--model", model)
    assert code == 0
    assert "90 % from" in out
    assert "pointwise" in out
    assert "of operators" in out
    code, out, _ = said("--target", TOY, "--model", model, "--json")
    assert json.loads(out)["target"] == TOY
    code, _, err = said("--target", TOY, "--model", model, "--all")
    assert code == 2
    assert "--all is not for --model" in err
    code, _, err = said("--model", model)
    assert "--target TARGET" in err
    code, _, err = said("--target", TOY, "--dim", "n=3", "--all")
    assert "options of --model" in err


def test_without_measurements_it_says_what_to_measure(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BadInputError, match="no measurements of toy") as failure:
        Lab(tmp_path / "empty.db").predict_model(TOY, folder / "net.onnx")
    assert "--space operators" in (failure.value.hint or "")


def test_another_precision_or_batch_is_refused(folder: Path) -> None:
    with pytest.raises(BadInputError, match="runs at batch 1"):
        lab_in(folder).predict_model("toy/onnxruntime/cpu/fp32/t1/b4", folder / "net.onnx")


# Own models and blocks


def exported(path: Path, arch: str) -> Path:
    """Write a network of the space of operators as a model file of one's own."""
    chosen = SPACE.parse(arch)
    get_exporter("onnx").export(SPACE.build(chosen, seed=7), torch.zeros(1, *SPACE.input_shape(chosen)), path)
    return path


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store in which two models of one's own and a block were measured, and no network of a space."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: pi4, pace: 0}\n")
    lab = lab_in(folder)
    for name, arch in (("one.onnx", "conv|c32|o32|s28|k3|t1|x1"), ("two.onnx", "conv|c64|o64|s28|k3|t1|x2")):
        lab.measure(TOY, model=exported(folder / name, arch), policy="quick")
    lab.measure(TOY, space="fbnet", blocks=True, count=3, policy="quick")
    exported(folder / "new.onnx", "conv|c32|o64|s28|k3|t1|x4")
    return folder


def test_own_models_and_blocks_are_learnt_from(own: Path) -> None:
    found = lab_in(own).predict_model(TOY, own / "new.onnx")
    assert found.labels == {"fbnet-blocks": 3, "model": 2}
    assert found.measured == 0
    assert found.remarks == ()
    measured = lab_in(own, "other.db").measure(TOY, model=own / "new.onnx", policy="quick").rows["latency_ms"].iloc[0]
    assert found.lower_ms < measured < found.upper_ms
    alone = lab_in(own).predict_model(TOY, own / "new.onnx", spaces_from="none")
    assert alone.labels == {"model": 2}
    assert alone.latency_ms != found.latency_ms
    named = lab_in(own).predict_model(TOY, own / "new.onnx", spaces_from="fbnet-blocks")
    assert named == found
    with pytest.raises(BadInputError, match=r"no labels of .* in a space operators") as failure:
        lab_in(own).predict_model(TOY, own / "new.onnx", spaces_from="operators")
    assert "fbnet-blocks" in (failure.value.hint or "")


def test_a_measured_model_is_answered_with_its_label(own: Path, tmp_path: Path) -> None:
    lab = lab_in(own)
    rows = lab.store.table(space="model")
    label = rows.loc[rows["arch"].str.startswith("one.onnx"), "latency_ms"].iloc[0]
    for path in (own / "one.onnx", tmp_path / "renamed.onnx"):
        path.write_bytes((own / "one.onnx").read_bytes())
        found = lab.predict_model(TOY, path)
        assert (found.latency_ms, found.measured) == (label, 1)
        assert "this is its label" in found.remarks[0]
        assert found.lower_ms < label < found.upper_ms < 1.5 * label
        assert found.predicted_ms != label


def test_a_measured_network_of_a_space_is_answered_with_its_label_too(folder: Path, tmp_path: Path) -> None:
    lab = lab_in(folder)
    arch = SPACE.designed()[0].text
    label = lab.store.table(space="operators").set_index("arch").loc[arch, "latency_ms"]
    path = tmp_path / "net.onnx"
    get_exporter("onnx").export(
        SPACE.build(SPACE.parse(arch)), torch.zeros(1, *SPACE.input_shape(SPACE.parse(arch))), path
    )
    found = lab.predict_model(TOY, path)
    assert (found.measured, found.latency_ms) == (1, label)


def test_a_row_without_kernels_is_named(own: Path, tmp_path: Path) -> None:
    """A store of an earlier latlab, or one that somebody has harmed."""
    copy = tmp_path / "latlab.db"
    lab_in(own).store.table()  # what is still in the log goes into the file
    with sqlite3.connect(own / "latlab.db") as source, sqlite3.connect(copy) as target:
        source.backup(target)
        kernels = json.dumps({"kernels": [{"kind": "conv", "count": 1, "macs": -4}]})
        for row, text in zip((1, 2), ("{}", kernels), strict=True):
            target.execute("UPDATE measurements SET artifact = ? WHERE id = ?", (text, row))
    lab = Lab(copy, inventory=own / "inventory.yaml", cache=own / "cache")
    found = lab.predict_model(TOY, own / "new.onnx")
    assert found.labels == {"fbnet-blocks": 3}
    assert "2 measured models of your own do not count" in found.remarks[-1]
    again = lab.predict_model(TOY, own / "one.onnx")  # its name says that it is the same
    assert again.measured == 1


def test_nothing_is_read_twice(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = lab_in(own)
    first = lab.predict_model(TOY, own / "new.onnx")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    for place in ("model_prediction.kernels_apart", "learnt_costs.kernels_of", "learnt_costs.target_labels"):
        monkeypatch.setattr(f"latlab.harness.active_learning.{place}", never)
    assert lab.predict_model(TOY, own / "new.onnx") == first
    monkeypatch.setattr("latlab.harness.active_learning.learnt_costs.target_labels", target_labels)
    assert lab_in(own).predict_model(TOY, own / "new.onnx") == first  # another process: the labels, and no file


def test_a_new_label_is_learnt_from(own: Path) -> None:
    lab = lab_in(own, "growing.db")
    lab.measure(TOY, model=own / "one.onnx", policy="quick")
    before = lab.predict_model(TOY, own / "new.onnx")
    lab.measure(TOY, model=own / "two.onnx", policy="quick")
    after = lab.predict_model(TOY, own / "new.onnx")
    assert (before.labels, after.labels) == ({"model": 1}, {"model": 2})


# Other metrics


@pytest.mark.parametrize("metric", ["energy_mj", "peak_memory_mb"])
def test_other_metrics_of_a_model(own: Path, metric: str) -> None:
    lab = lab_in(own)
    found = lab.predict_model(TOY, own / "new.onnx", metric=metric)
    known = lab.store.table(space="model")[metric]
    assert 0.3 * known.min() < found.latency_ms < 30 * known.max()
    unit = metric.rpartition("_")[2]
    told = found.to_json()
    assert told[metric] == found.latency_ms
    assert told[f"lower_{unit}"] < told[metric] < told[f"upper_{unit}"]
    assert "latency_ms" not in told
    measured = lab.store.table(space="model").dropna(subset=[metric])["arch"].iloc[0]  # short passes have no energy
    label = lab.predict_model(TOY, own / measured.split()[0], metric=metric)
    assert label.measured == 1
    assert label.latency_ms in set(known)


def test_a_metric_that_a_target_lacks(folder: Path) -> None:
    """The device `ideal` has no meter of energy."""
    lab = lab_in(folder)
    with pytest.raises(BadInputError, match="no energy_mj of toy") as failure:
        lab.predict_model(TOY, folder / "net.onnx", metric="energy_mj")
    assert "peak_memory_mb" in (failure.value.hint or "")
    with pytest.raises(BadInputError, match="'watts' is no metric"):
        lab.predict_model(TOY, folder / "net.onnx", metric="watts")


# Files that do harm


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Have files read by readers in which a function of this code stands for `kernels_of`."""
    monkeypatch.setattr(apart, "_idle", [])

    def read_by(code: str) -> None:
        program = f"import os, signal, time\nfrom latlab.harness.models import kernels_apart as apart\n{code}\n"
        monkeypatch.setattr(apart, "READER", ("-c", f"{program}apart.kernels_of = read\napart._serve()"))

    yield read_by
    for one in apart._idle:
        one.end(0.0)


def test_a_file_that_ends_the_process_that_reads_it(own: Path, reader: Callable[[str], None]) -> None:
    reader("def read(path, *_): os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(BadInputError, match=r"new\.onnx are unknown: reading it ended the process \(SIGSEGV\)"):
        kernels_apart(own / "new.onnx")


def test_a_file_that_is_read_for_ever(own: Path, tmp_path: Path, reader: Callable[[str], None]) -> None:
    """The process that reads it is ended, too."""
    reader(f"def read(path, *_): open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(99)")
    with pytest.raises(BadInputError, match="took over"):
        kernels_apart(own / "new.onnx", most_s=4)
    pid = tmp_path / "pid"  # on a busy machine it may not have begun
    wait_until(lambda: not pid.exists() or not Path(f"/proc/{pid.read_text()}/stat").exists(), "it reads on", 5)


def test_a_reader_reads_one_file_after_the_other_and_ends_when_nobody_asks(
    own: Path, reader: Callable[[str], None]
) -> None:
    reader("read, apart.IDLE_S = apart.kernels_of, 0.5")
    first = kernels_apart(own / "new.onnx")
    (one,) = apart._idle
    assert kernels_apart(own / "new.onnx") == first
    assert apart._idle == [one]
    wait_until(lambda: one._process.poll() == 0, "it waits on", 5)
    assert kernels_apart(own / "new.onnx") == first
    assert apart._idle != [one]


def test_a_broken_file_is_refused_in_words(own: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes((own / "new.onnx").read_bytes()[:-2000])
    with pytest.raises(BadInputError, match=r"broken\.onnx"):
        lab_in(own).predict_model(TOY, path)
