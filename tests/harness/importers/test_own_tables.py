"""Tests of users' own tables: what a column's name says, units, forms of architectures, and what is refused."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from files import latencies, table_file
from hypothesis import given, settings
from hypothesis import strategies as st

from latlab.harness.errors import BadInputError
from latlab.harness.importers.arch_formats import NASLIB_EDGES, NASLIB_OPS, naslib_genes
from latlab.harness.importers.columns import latency_columns
from latlab.harness.importers.read import SourceTable, read_sources
from latlab.search_spaces import get
from latlab.search_spaces.nasbench201.cell import EDGES, OPS

CELL, FBNET, OFA = get("nasbench201"), get("fbnet"), get("ofa-mobilenetv3")
ARCHS = CELL.sample(3)
TEXTS = [arch.text for arch in ARCHS]


def read(folder: Path, *lines: str, name: str = "mine.csv", **options: object) -> list[SourceTable]:
    path = folder / name
    path.write_text("\n".join(line.format(*TEXTS) for line in lines) + "\n", encoding="utf-8")
    return read_sources([path], **options)  # type: ignore[arg-type]


def values(table: SourceTable) -> list[float]:
    return [pytest.approx(one) for one in table.latency_ms.tolist()]


# Faults that were found


def test_seconds_by_the_columns_name(tmp_path: Path) -> None:
    [table] = read(tmp_path, "arch,latency_s", "{0},.012", "{1},.010", "{2},.008")
    assert (table.name, table.unit) == ("mine", "s")
    assert values(table) == [12.0, 10.0, 8.0]


def test_an_accuracy_is_no_device(tmp_path: Path) -> None:
    [table] = read(tmp_path, "arch,pi,accuracy", "{0},12,94.1", "{1},10,93")
    assert table.name == "pi"
    assert table.notes[0] == "left out, because they are no latencies: accuracy"


def test_deviations_and_bounds_are_no_devices(tmp_path: Path) -> None:
    [table] = read(tmp_path, "arch,latency_ms,std_ms,lower_ms,upper_ms", "{0},12,.5,11,13", "{1},10,.5,9,11")
    assert (table.name, values(table), table.stderr_ms) == ("mine", [12.0, 10.0], None)


def test_rows_that_name_their_device(tmp_path: Path) -> None:
    first, second = read(tmp_path, "arch,device,latency_s", "{0},7,.012", "{1},8,.010", "{2},7,.008")
    assert (first.name, values(first), second.name, values(second)) == ("7", [12.0, 8.0], "8", [10.0])


# Columns


@pytest.mark.parametrize(
    ("name", "device", "unit"),
    [
        ("latency_ms", None, "ms"), ("latency_us", None, "us"), ("latency_ns", None, "ns"), ("lat(ms)", None, "ms"),
        ("Latency [s]", None, "s"), ("Latency (µs)", None, "us"), ("latencyMs", None, "ms"), ("time", None, None),
        ("latency in seconds", None, "s"), ("ms", None, "ms"), ("mean_latency_ms", None, "ms"),
        ("measured_ms", None, "ms"), ("pixel3", "pixel3", None), ("pixel3_ms", "pixel3", "ms"),
        ("raspi4_latency", "raspi4", None), ("latency_pixel3_us", "pixel3", "us"),
        ("titan_rtx_256", "titan_rtx_256", None),
        ("Galaxy S", "Galaxy S", None), ("gpu [ms]", "gpu", "ms"), ("0", "0", None), ("1080ti_1", "1080ti_1", None),
    ],
)  # fmt: skip
def test_names_of_latencies(name: str, device: str | None, unit: str | None) -> None:
    [column], left_out = latency_columns({name: [1.0]}, "f")
    assert (column.device, column.unit, left_out) == (device, unit, [])


@pytest.mark.parametrize(
    "name",
    ["accuracy", "test-accuracy", "top1", "FLOPs", "params", "params_M", "energy_mj", "pixel3_energy", "memory",
     "peak_memory_mb",
     "std", "std_ms", "stdev_ms", "latency_std", "stderr_ms", "lower_ms", "upper_bound", "low_ms", "high_ms",
     "latency_low_ms",
     "raw_ms", "p50_ms", "index", "idx", "seed", "Unnamed: 3", "measured", "run", "eyeriss_arithmetic_intensity",
     "predicted_ms"],
)  # fmt: skip
def test_names_of_what_is_no_latency(name: str) -> None:
    columns, left_out = latency_columns({"pi": [1.0], name: [2.0]}, "f")
    assert [column.device for column in columns] == ["pi"] or name == "run"
    assert left_out == [name] or name in ("stderr_ms", "run")


def test_errors_belong_to_their_latencies(tmp_path: Path) -> None:
    [table] = read(tmp_path, "arch,latency_s,stderr_ms", "{0},.012,.5", "{1},.010,.25")
    assert table.stderr_ms is not None
    assert table.stderr_ms.tolist() == [pytest.approx(0.5), pytest.approx(0.25)]
    pi, gpu = read(tmp_path, "arch,pi_ms,pi_stderr_ms,gpu_ms,std error gpu", "{0},12,.5,3,.1", "{1},10,,3,.2")
    assert pi.stderr_ms is not None
    assert gpu.stderr_ms is not None
    assert np.array_equal(pi.stderr_ms, [0.5, np.nan], equal_nan=True)
    assert gpu.stderr_ms.tolist() == [0.1, 0.2]
    with pytest.raises(BadInputError, match=r"mine\.csv, line 3: the standard error of mine is -1"):
        read(tmp_path, "arch,latency_ms,stderr_ms", "{0},12,1", "{1},12,-1")


def test_two_latencies_of_one_device_are_questioned(tmp_path: Path) -> None:
    lines = ("arch,latency_ms,latency_s", "{0},12,.012")
    with pytest.raises(BadInputError, match="'latency_ms' and 'latency_s' are both latencies of one device") as error:
        read(tmp_path, *lines)
    assert error.value.hint == "Remove one of them, or rename it."


def test_text_and_truth_are_left_out(tmp_path: Path) -> None:
    [table] = read(tmp_path, "arch,pi,remark,fused", "{0},12,quick,True", "{1},10,slow,False")
    assert table.name == "pi"
    assert "remark, fused" in table.notes[0]
    path = table_file(tmp_path / "t.parquet", {"arch": TEXTS, "pi": [1.0, 2.0, 3.0], "fused": [True, False, True]})
    assert [one.name for one in read_sources([path])] == ["pi"]


# Units


@pytest.mark.parametrize(("value", "likely"), [("0.012", "s"), ("12000", "us"), ("12000000", "ns")])
def test_an_impossible_unit_is_questioned(tmp_path: Path, value: str, likely: str) -> None:
    lines = ("arch,pi", f"{{0}},{value}")
    with pytest.raises(BadInputError, match=r"mine\.csv: the median latency of pi would be") as error:
        read(tmp_path, *lines)
    assert f"in {likely} (12 ms), say --unit {likely}" in str(error.value.hint)
    assert "--insist" in str(error.value.hint)
    [right] = read(tmp_path, *lines, unit=likely)
    assert values(right) == [12.0]
    [as_is] = read(tmp_path, *lines, insist=True)
    assert values(as_is) == [float(value)]


def test_a_unit_that_contradicts_the_column(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="latency_s is in s by its name, --unit says ms"):
        read(tmp_path, "arch,latency_s", "{0},12", unit="ms")


@pytest.mark.data
def test_published_latencies_are_possible(data_folder: Path) -> None:
    for file, space in (("nasbench201_eagle_latency_ms", "nasbench201"), ("fbnet_latency_ms", "fbnet")):
        for table in read_sources([data_folder / f"{file}.parquet"], space=space):
            assert 0.5 < np.median(table.latency_ms) < 200


# Numbers and encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("first", ["", "sep=;\r\n"])
def test_excels_files(tmp_path: Path, encoding: str, first: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f"{first}arch;Gerät (ms);;\r\n{TEXTS[0]};12,5;;\r\n{TEXTS[1]};1.010,25;;\r\n\r\n".encode(encoding))
    [table] = read_sources([path])
    assert (table.name, values(table)) == ("Gerät", [12.5, 1010.25])


def test_commas_that_may_mean_two_things(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"line 2: pi is '1,234', which may mean 1234 or 1.234"):
        read(tmp_path, "arch;pi", "{0};1,234", "{1};2,345")
    with pytest.raises(BadInputError, match=r"line 3: pi is '1.5', while other rows have decimal commas"):
        read(tmp_path, "arch;pi", "{0};1,5", "{1};1.5")
    (tmp_path / "t.xlsx").write_bytes(b"PK\3\4xl")
    with pytest.raises(BadInputError, match="a workbook cannot be read") as error:
        read_sources([tmp_path / "t.xlsx"])
    assert "CSV" in str(error.value.hint)


@pytest.mark.parametrize("empty", ["", " ", "NA", "nan", "n/a", "null", "-"])
def test_empty_cells_are_not_measured(tmp_path: Path, empty: str) -> None:
    [table] = read(tmp_path, "arch,pi", f"{{0}},{empty}", "{1},10")
    assert [arch.text for arch in table.archs] == [TEXTS[1]]


def test_rows_without_a_device_or_an_architecture(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"line 3: device is empty"):
        read(tmp_path, "arch,device,latency_ms", "{0},a,1", "{1},,1")
    with pytest.raises(BadInputError, match=r"line 3: nasbench201: "):
        read(tmp_path, "arch,pi", "{0},1", ",1", space="nasbench201")
    with pytest.raises(BadInputError, match="no column is called latency") as error:
        read(tmp_path, "arch,device,one,two", "{0},a,1,2")
    assert "latency_ms" in str(error.value.hint)


# Forms of architectures


def test_naslibs_order_is_that_of_its_code() -> None:
    """Each edge of NASLib has its operation in the string, whatever the order of the edges is."""
    for arch in CELL.sample(50):
        ops = dict(zip(EDGES, (OPS[gene] for gene in arch.genes), strict=True))
        assert tuple(naslib_genes([NASLIB_OPS.index(ops[edge]) for edge in NASLIB_EDGES])) == arch.genes
    assert naslib_genes((2, 2, 3, 1, 4, 2)) == [3, 3, 0, 2, 4, 3]


def test_naslibs_tuples_and_official_indices(tmp_path: Path) -> None:
    [table] = read(tmp_path, "arch,pi", '"(2, 2, 3, 1, 4, 2)",12', '"[1, 1, 2, 3, 0, 1]",10', arch_format="naslib")
    assert [arch.genes for arch in table.archs] == [(3, 3, 0, 2, 4, 3), (0, 0, 2, 3, 1, 0)]
    for header in ("arch,pi", "index,pi", "arch_index,pi"):
        [table] = read(tmp_path, header, "11982,12", "0,10", arch_format="index")
        assert [arch.text for arch in table.archs] == [CELL.references()[0].text, next(iter(CELL.enumerate())).text]
    for cell in ('"(2, 2, 3, 1, 4, 2)"', "11982"):
        with pytest.raises(BadInputError, match=r"mine\.csv, line 2: arch") as error:
            read(tmp_path, "arch,pi", f"{cell},12")
        assert "--arch-format" in str(error.value.hint)
    for cell, form in (("15625", "index"), ("-1", "index"), ('"(5, 0, 0, 0, 0, 0)"', "naslib"), ("12", "naslib")):
        with pytest.raises(BadInputError, match=r"mine\.csv, line 2: "):
            read(tmp_path, "arch,pi", f"{cell},12", arch_format=form)


@pytest.mark.data
def test_the_official_index_is_that_of_the_published_table(tmp_path: Path, data_folder: Path) -> None:
    frame = pd.read_parquet(data_folder / "nasbench201_latency_ms.parquet")
    path = table_file(tmp_path / "t.csv", {"index": range(len(frame)), "pixel3": frame["pixel3"]})
    [table] = read_sources([path], arch_format="index")
    assert [arch.text for arch in table.archs] == frame["arch"].tolist()


def test_fbnet_and_ofa_in_a_column(tmp_path: Path) -> None:
    chains, wide = FBNET.sample(3), OFA.sample(3)
    names = ["k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip"]
    forms = {
        "index": [json.dumps(list(arch.genes)) for arch in chains],
        "tuple": [str(arch.genes) for arch in chains],
        "name": [json.dumps([names[gene] for gene in arch.genes]) for arch in chains],
        "python": [str([names[gene] for gene in arch.genes]) for arch in chains],
    }
    for texts in forms.values():
        path = table_file(tmp_path / "f.csv", {"arch": texts, "pi": latencies(chains)})
        [table] = read_sources([path], space="fbnet")
        assert list(table.archs) == chains
    dicts = [
        {"ks": [k or 7 for k in arch.genes[6:26]], "e": [e or 3 for e in arch.genes[26:]], "d": list(arch.genes[1:6]),
         "r": arch.genes[0]}
        for arch in wide
    ]  # fmt: skip
    for texts in ([json.dumps(one) for one in dicts], [str(one) for one in dicts]):
        [table] = read_sources(
            [table_file(tmp_path / "o.csv", {"arch": texts, "pi": latencies(wide)})], space="ofa-mobilenetv3"
        )
        assert list(table.archs) == wide
    for broken in ('{"ks": [3]}', '{"ks": ', "[" * 2000):
        with pytest.raises(BadInputError, match=r"o\.csv, line 2: arch"):
            read_sources([table_file(tmp_path / "o.csv", {"arch": [broken], "pi": [1.0]})])


# Whatever is in a table


CELLS = st.one_of(
    st.sampled_from(["", "12", "1,5", "1e999", "-3", "0", "inf", "nan", "NA", "1e-300", "=cmd()",
                     "\x1b[31m", "\u202e9", "7" * 400]),
    st.text(max_size=8), st.floats().map(str), st.sampled_from(TEXTS), st.integers().map(str),
)  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(["arch", "device", "latency_ms", "latency_s", "stderr_ms", "pi", "pi_us", "space", "status", "ops",
                     "ks", "index", "accuracy", "measured", "lower_ms", "upper_ms", "role"]),
    st.text(max_size=8),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    header=st.lists(NAMES, min_size=1, max_size=5),
    rows=st.lists(st.lists(CELLS, min_size=5, max_size=5), max_size=4),
    separator=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    form=st.sampled_from(["auto", "genes", "naslib", "index"]),
    unit=st.sampled_from([None, "s", "ms", "us", "ns"]),
)
def test_any_table_is_read_or_refused_with_its_name(
    header: list[str], rows: list[list[str]], separator: str, encoding: str, form: str, unit: str | None
) -> None:
    """A table is either labels that are positive and finite, or one error that names the file."""
    lines = [header, *([TEXTS[at % 3], *row][: len(header)] for at, row in enumerate(rows))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.csv"
        path.write_bytes("\n".join(separator.join(line) for line in lines).encode(encoding, "surrogatepass"))
        tables, refusal = _read_or_refusal(path, form, unit)
    if refusal is not None:
        assert "any.csv" in refusal.message or "space" in refusal.message
        assert "\x1b" not in str(refusal)
    for table in tables:
        assert np.isfinite(table.latency_ms).all()
        assert (table.latency_ms > 0).all()
        assert len(set(table.archs)) == len(table.archs)
        assert table.name.isprintable()


def _read_or_refusal(path: Path, form: str, unit: str | None) -> tuple[list[SourceTable], BadInputError | None]:
    try:
        return read_sources([path], arch_format=form, unit=unit), None
    except BadInputError as error:
        return [], error


# What nobody has said


def test_an_unnamed_unit_is_told(tmp_path: Path) -> None:
    [table] = read(tmp_path, "arch,latency", "{0},12", "{1},10")
    assert table.notes == ("10 to 12 ms: no column names a unit, so they are taken as ms",)
    assert read(tmp_path, "arch,latency_ms", "{0},12", "{1},10")[0].notes == ()
    assert read(tmp_path, "arch,latency", "{0},12", "{1},10", unit="ms")[0].notes == ()


def test_seconds_that_might_be_milliseconds_are_questioned(tmp_path: Path) -> None:
    lines = ("arch,latency", "{0},.0257", "{1},.03", "{2},.022")
    with pytest.raises(BadInputError, match=r"no column names the unit of mine, and a median of 0\.0257 may") as error:
        read(tmp_path, *lines)
    assert "--unit ms, or --unit s" in str(error.value.hint)
    assert values(read(tmp_path, *lines, unit="s")[0]) == [25.7, 30.0, 22.0]
    assert values(read(tmp_path, *lines, unit="ms")[0]) == [0.0257, 0.03, 0.022]


@pytest.mark.parametrize(("value", "unit"), [("1e308", "ms"), ("5000", "ms"), ("0.01", "ms"), ("1e306", "s")])
def test_a_latency_far_from_all_others_is_questioned(value: str, unit: str, tmp_path: Path) -> None:
    first, second = (10.0, 12.0) if unit == "ms" else (0.01, 0.012)
    lines = (f"arch,latency_{unit}", f"{{0}},{first}", f"{{1}},{value}", f"{{2}},{second}")
    with pytest.raises(BadInputError, match=r"mine\.csv, line 3: the latency of latency_"):
        read(tmp_path, *lines)
    if "e" not in value:
        assert values(read(tmp_path, *lines, insist=True)[0])[1] == float(value)


def test_no_infinity_is_imported_even_if_one_insists(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"line 3.*must be positive"):
        read(tmp_path, "arch,latency_s", "{0},.01", "{1},1e306", insist=True)


def test_a_network_that_is_folded_to_nothing_may_take_nothing(tmp_path: Path) -> None:
    empty = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    [table] = read(tmp_path, "arch,latency_ms", "{0},12", "{1},10", f"{empty},.003")
    assert values(table)[2] == 0.003


def test_one_wrong_architecture_is_named(tmp_path: Path) -> None:
    lines = ("arch,latency_ms", "{0},12", "{1},10", TEXTS[2].replace("conv", "cnov") + ",11", "{2},9")
    with pytest.raises(BadInputError, match=r"mine\.csv, line 4: nasbench201: unknown operation") as error:
        read(tmp_path, *lines)
    assert error.value.hint == "Of the first 4 rows, 3 are architectures of nasbench201."


@pytest.mark.parametrize("key", ["index", "Index", "arch_id", "uid"])
def test_a_column_of_indices_is_recognised(key: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=f"it has: {key}, latency_ms") as error:
        read(tmp_path, f"{key},latency_ms", "3,12", "4,10")
    assert f"If {key} is NAS-Bench-201's official index, say --arch-format index" in str(error.value.hint)


def test_two_columns_of_architectures(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="'arch' and 'Arch' both name architectures"):
        read(tmp_path, "arch,Arch,latency_ms", "{0},{1},12", "{1},{2},10")


@pytest.mark.parametrize("keys", ["run1,run2,run3", "Rep 1,Rep 2,Rep 3", "iter_1,iter_2,iter_3"])
def test_repeats_are_no_devices(keys: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="look like repeated measurements of one device"):
        read(tmp_path, f"arch,{keys}", "{0},12,12,13", "{1},10,11,10")


def test_a_word_in_a_cell_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="line 3: latency_ms is 'OOM'") as error:
        read(tmp_path, "arch,latency_ms", "{0},12", "{1},OOM")
    assert "Write NaN" in str(error.value.hint)


@pytest.mark.parametrize("count", [10_001, 200_000])
def test_too_many_columns(count: int, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="columns are too many"):
        read(tmp_path, "arch," + ",".join(f"c{number}" for number in range(count)), "{0}")


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", Path("/dev/zero")):
        with pytest.raises(BadInputError, match="is no regular file"):
            read_sources([path])


def test_utf_16_without_its_mark(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(f"arch,latency_ms\n{TEXTS[0]},12\n".encode("utf-16-le"))
    with pytest.raises(BadInputError, match="NUL bytes") as error:
        read_sources([path])
    assert error.value.hint == "Save it as CSV in UTF-8."
