"""Tests of reading publishers' files and users' tables, right and wrong ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from files import hat_file, latencies, lookup_file, pickle_file, table_file, torch_file

from latlab.harness.errors import BadInputError
from latlab.harness.importers.read import SourceTable, read_sources
from latlab.search_spaces import get
from latlab.search_spaces.ofa_mobilenetv3.skeleton import blocks_of, stages

CELL, FBNET, OFA = get("nasbench201"), get("fbnet"), get("ofa-mobilenetv3-w1.2")


def labels(table: SourceTable) -> dict[str, float]:
    return {arch.text: float(value) for arch, value in zip(table.archs, table.latency_ms, strict=True)}


def expected(archs: list, values: list[float]) -> dict[str, float]:
    return {arch.text: pytest.approx(value) for arch, value in zip(archs, values, strict=True)}


def refused(*paths: Path, match: str, **options: str) -> str:
    with pytest.raises(BadInputError, match=match) as error:
        read_sources(paths, **options)
    return str(error.value)


# HELP


def test_help_of_nasbench201_is_in_the_official_order(tmp_path: Path) -> None:
    archs = list(CELL.enumerate())
    values = [1.0 + index / 1000 for index in range(len(archs))]
    table, other = read_sources(
        [torch_file(tmp_path / "pixel2.pt", values), torch_file(tmp_path / "fpga.pt", values[::-1])]
    )
    assert (table.name, table.space, len(table.archs), other.name) == ("pixel2", "nasbench201", 15625, "fpga")
    assert labels(table)[archs[7].text] == pytest.approx(1.007)
    assert labels(other)[archs[0].text] == pytest.approx(values[-1])


@pytest.mark.parametrize("form", ["list", "metainfo"])
def test_help_of_fbnet(tmp_path: Path, form: str) -> None:
    archs = FBNET.sample(30)
    genes = [list(arch.genes) for arch in archs]
    value = genes if form == "list" else {"arch": [{"op_idx_list": one} for one in genes]}
    files = [torch_file(tmp_path / "arch.pt", value), torch_file(tmp_path / "raspi4.pt", latencies(archs))]
    [table] = read_sources(files)
    assert (table.name, table.space, table.unit, table.format) == ("raspi4", "fbnet", "ms", "help")
    assert labels(table) == expected(archs, latencies(archs))
    [imagenet] = read_sources(files, space="fbnet-imagenet", device="mine")
    assert (imagenet.name, imagenet.space) == ("mine", "fbnet-imagenet")


def test_help_of_ofa_needs_to_know_the_width(tmp_path: Path) -> None:
    archs = OFA.sample(30)
    # Blocks beyond the depth are any, and say nothing.
    dicts = [
        {"ks": [k or 7 for k in arch.genes[6:26]], "e": [e or 3 for e in arch.genes[26:]], "d": list(arch.genes[1:6]),
         "r": arch.genes[0] if number % 2 else [arch.genes[0]]}
        for number, arch in enumerate(archs)
    ]  # fmt: skip
    files = [
        torch_file(tmp_path / "ofa_archs.pt", {"arch": dicts}),
        torch_file(tmp_path / "v100_1.pt", latencies(archs)),
    ]
    said = refused(*files, match="fit several spaces")
    assert "--space" in said
    [table] = read_sources(files, space=OFA.name)
    assert labels(table) == expected(archs, latencies(archs))


def test_help_files_that_do_not_belong_together(tmp_path: Path) -> None:
    archs = FBNET.sample(5)
    genes = torch_file(tmp_path / "arch.pt", [list(arch.genes) for arch in archs])
    short = torch_file(tmp_path / "short.pt", [1.0] * 4)
    assert "latency/*.pt" in refused(genes, match="lists architectures, but no latencies")
    assert "arch.pt" in refused(short, match=r"short\.pt: 4 latencies, but nasbench201 has 15,625")
    refused(genes, short, match=r"short\.pt: 4 latencies, but .*arch\.pt has 5")
    refused(genes, torch_file(tmp_path / "arch2.pt", [[1]]), short, match="both list architectures")
    wrong = torch_file(tmp_path / "wrong.pt", [[9] * 22] * 4)
    refused(wrong, short, match=r"wrong\.pt, index 0: fbnet: genes are 22 operation indices 0-8")
    refused(torch_file(tmp_path / "odd.pt", [["a"]]), short, match="index 0: not an architecture as HELP")
    refused(torch_file(tmp_path / "text.pt", ["a", "b"]), match="holds neither")
    refused(torch_file(tmp_path / "huge.pt", [10**400 % 2**62, 1.0]), match="latencies, but")
    assert refused(short, match="it looks like help", format="eagle")


# EAGLE


def test_eagle_is_seconds_of_our_own_operations(tmp_path: Path) -> None:
    archs = CELL.sample(40)
    values = {arch.genes: value / 1000 for arch, value in zip(archs, latencies(archs), strict=True)}
    [table] = read_sources([pickle_file(tmp_path / "mobile-dsp.pickle", values)])
    assert (table.name, table.space, table.unit, table.format) == ("mobile-dsp", "nasbench201", "s", "eagle")
    assert labels(table) == expected(archs, latencies(archs))


def test_eagle_files_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "d.pickle"
    refused(pickle_file(path, {(0, 1, 2, 3, 4, 5): 0.1}), match=r"key \(0, 1, 2, 3, 4, 5\): nasbench201: genes are 6")
    refused(pickle_file(path, {(0, 1, 2, 3, 4, 4): "fast"}), match="'fast' is no latency")
    refused(pickle_file(path, {(0, 1, 2, 3, 4, 4): -0.1}), match="must be positive")
    refused(pickle_file(path, {(0, 1, 2, 3, 4, 4): 0.1}), match="not of fbnet", space="fbnet")
    refused(pickle_file(path, {"a": 0.1}), match="holds neither")
    path.write_bytes(b"\x80\x03cos\nsystem\nq\x00.")
    assert "never unpickles" in refused(path, match=r"d\.pickle, byte 2: .*GLOBAL 'os system'")


# HAT


def row(encoder: tuple[float, ...], decoder: tuple[float, ...], times: tuple[float, ...]) -> list[float]:
    return [*encoder, *decoder, *times, 0.1, 0.2]


ROWS = [
    row((640, 6, 7168 / 6, 28 / 6), (640, 3, 1024, 4, 16 / 3, 2), (9.9, 236.8)),
    row((640, 6, 7168 / 6, 28 / 6), (512, 1, 512, 8, 8, 2), (10.1, 110.5)),
    row((512, 6, 1536, 20 / 6), (640, 3, 1024, 4, 16 / 3, 2), (9.5, 215.2)),
]


def test_hat_gives_an_encoder_and_a_decoder(tmp_path: Path) -> None:
    encoder, decoder = read_sources([hat_file(tmp_path / "xeon.csv", ROWS)])
    assert labels(encoder) == {"d640|f7168|h28": pytest.approx(10.0), "d512|f9216|h20": pytest.approx(9.5)}
    assert "1 architectures are there more than once (the first: line 2 and line 3)" in encoder.notes[0]
    assert labels(decoder)["e640|d640|l3|f3072|h12|x16|a6"] == pytest.approx(236.8)
    assert len(decoder.archs) == 3
    assert not decoder.notes
    [alone] = read_sources([hat_file(tmp_path / "xeon.csv", ROWS)], space="hat-decoder", device="Xeon")
    assert (alone.name, alone.space) == ("Xeon", "hat-decoder")
    [whole] = read_sources([hat_file(tmp_path / "xeon.csv", ROWS)], space="hat")
    assert labels(whole)["d640|f7168|h28+d640|l3|f3072|h12|x16|a6"] == pytest.approx(9.9 + 236.8)
    assert len(whole.archs) == 3


def test_hat_files_that_are_wrong(tmp_path: Path) -> None:
    odd = row((640, 6, 1000.1, 4), (640, 3, 1024, 4, 4, 2), (9.9, 236.8))
    refused(hat_file(tmp_path / "a.csv", [ROWS[0], odd]), match="line 3: encoder_ffn_embed_dim_avg is not an average")
    strange = row((700, 6, 1024, 4), (640, 3, 1024, 4, 4, 2), (9.9, 236.8))
    refused(hat_file(tmp_path / "a.csv", [strange]), match="line 2: hat-encoder")
    refused(hat_file(tmp_path / "a.csv", ROWS), match="not of fbnet", space="fbnet")


# Lookup tables


def test_lookup_tables_become_sums_over_networks(tmp_path: Path) -> None:
    files = [lookup_file(tmp_path / f"note10_{size}_lookup_table.yaml", size, 1.2, size / 100) for size in (160, 176)]
    [table] = read_sources(files)
    assert (table.name, table.space, len(table.archs)) == ("note10", "ofa-mobilenetv3-w1.2", 2000)
    assert "sums of the latencies" in table.notes[0]
    assert {arch.genes[0] for arch in table.archs} == {160, 176}
    for arch in table.archs[:20]:
        size = arch.genes[0]
        parts = [block.in_channels + block.kernel for block in blocks_of(size, stages(arch.genes), 1.2)]
        assert labels(table)[arch.text] == pytest.approx(size / 100 * (sum(parts) + 15))
        blocks = len(parts) + 5
        assert table.stderr_ms is not None
        assert table.stderr_ms[list(table.archs).index(arch)] == pytest.approx(0.01 * blocks**0.5)
    again = read_sources(files)[0]
    assert labels(again) == labels(table)
    [narrow] = read_sources([lookup_file(tmp_path / "160_lookup_table.yaml", 160, 1.0)])
    assert (narrow.name, narrow.space) == (tmp_path.name, "ofa-mobilenetv3")


def test_lookup_tables_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    refused(lookup_file(path, 160, 1.2, leave_out="kernel:7"), match=r"\d+ blocks of ofa-mobilenetv3-w1\.2 at 160 px")
    refused(
        lookup_file(path, 160, 1.2, leave_out="Conv-input"), match="its first convolution .there is none. is not of"
    )
    refused(lookup_file(path, 160, 1.2), match="is not of ofa-mobilenetv3", space="ofa-mobilenetv3")
    path.write_text(path.read_text().replace("mean: 1.0", "mean: -1.0"))
    refused(path, match=r"t\.yaml, line \d+: mean of Conv-input.* is -1.0, not a positive number")
    path.write_text("a: [1, 2]\n")
    refused(path, match="not a lookup table")
    path.write_text("a: [1, 2\n")
    refused(path, match="line 2")
    one, two = (lookup_file(tmp_path / f"{name}.yaml", 160, 1.2) for name in "ab")
    refused(one, two, match="cannot stand beside")


# Tables of one's own


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_wide_tables(tmp_path: Path, suffix: str) -> None:
    archs = CELL.sample(20)
    first, second = latencies(archs), latencies(archs, 2)
    second[3] = np.nan
    path = table_file(tmp_path / f"t.{suffix}", {"arch": [a.text for a in archs], "one": first, "two": second})
    one, two = read_sources([path])
    assert labels(one) == expected(archs, first)
    assert len(two.archs) == 19
    assert archs[3] not in two.archs
    [only] = read_sources([path], device="two", unit="s")
    assert only.name == "two"
    assert labels(only)[archs[0].text] == pytest.approx(1000 * second[0])
    refused(path, match="not among the devices of the table: one, two", device="three")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_architectures_as_integers(tmp_path: Path, suffix: str) -> None:
    archs = FBNET.sample(10)
    path = table_file(tmp_path / f"t.{suffix}", {"ops": [list(a.genes) for a in archs], "gpu": latencies(archs)})
    assert "--space" in refused(path, match="fit several spaces: fbnet, fbnet-imagenet")
    [table] = read_sources([path], space="fbnet")
    assert labels(table) == expected(archs, latencies(archs))
    wide = OFA.sample(10)
    columns = {
        "ks": [[k or 3 for k in a.genes[6:26]] for a in wide],
        "e": [[e or 3 for e in a.genes[26:]] for a in wide],
        "d": [list(a.genes[1:6]) for a in wide],
        "r": [a.genes[0] for a in wide],
        "gpu": latencies(wide),
    }
    [table] = read_sources([table_file(tmp_path / f"o.{suffix}", columns)], space=OFA.name)
    assert labels(table) == expected(wide, latencies(wide))


def test_long_tables_as_latlab_exports_them(tmp_path: Path) -> None:
    cells, chains = CELL.sample(4), FBNET.sample(2)
    rows = [("pi/tflite/cpu/fp32/t1/b1", "nasbench201", a.text, 1.0 + i, "ok") for i, a in enumerate(cells)]
    rows += [("pi/tflite/cpu/fp32/t1/b1", "fbnet", a.text, 5.0, "ok") for a in chains]
    rows += [("gpu", "nasbench201", cells[0].text, 9.0, "ok"), ("gpu", "nasbench201", cells[1].text, np.nan, "crash")]
    frame = pd.DataFrame(rows, columns=["target", "space", "arch", "latency_ms", "status"]).assign(stderr_ms=0.1)
    path = table_file(tmp_path / "export.csv", dict(frame))
    tables = {(table.name, table.space): table for table in read_sources([path])}
    assert set(tables) == {("pi-tflite-cpu-fp32-t1-b1", "nasbench201"), ("pi-tflite-cpu-fp32-t1-b1", "fbnet"),
                           ("gpu", "nasbench201")}  # fmt: skip
    pi = tables["pi-tflite-cpu-fp32-t1-b1", "nasbench201"]
    assert labels(pi)[cells[2].text] == 3.0
    assert pi.stderr_ms is not None
    assert pi.stderr_ms.tolist() == [0.1] * 4


def test_repeated_measurements_are_averaged_and_told(tmp_path: Path) -> None:
    text = CELL.sample(1)[0].text
    columns = {"arch": [text] * 3, "device": ["a"] * 3, "latency_ms": [1.0, 2.0, 3.0], "stderr_ms": [0.3] * 3}
    [table] = read_sources([table_file(tmp_path / "t.csv", columns)])
    assert table.latency_ms.tolist() == [2.0]
    assert table.stderr_ms is not None
    assert table.stderr_ms[0] == pytest.approx(0.3 / 3**0.5)
    assert "(the first: line 2 and line 3), up to 200 % apart" in table.notes[0]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "it is empty"),
        ("arch,a\n", "it has no rows"),
        ("what,a\nx,1\n", "no column names the architectures"),
        ("arch,a\nx,1\n", "of no space that latlab knows; the first is x"),
        ("arch,a\n{0}\n", "line 2: 1 fields, but the first line names 2"),
        ("arch,a,a\n{0},1,2\n", "two columns are called 'a'"),
        ("arch,a\n{0},fast\n", "line 2: a is 'fast', which is no number"),
        ("arch,a\n{0},1\n{1},0\n", "line 3: the latency of a is 0; it must be positive"),
        ("arch,a\n{0},-1\n{1},-2\n", r"line 2: the latency of a is -1 \(and 1 more\)"),
        ("arch,a\n{0},inf\n", "must be positive"),
        ("arch,a\n{0},\n", "a has no latency at all"),
        ("arch,a\n{0},0.0000001\n", "would be 1e-07 ms"),
        ("arch,a\n{0},1e9\n", r"--unit ns; if they are right as they are, --insist"),
        ("arch\n{0}\n", "it has no latencies"),
        ("arch,all\n{0},1\n", "'all' cannot be a source's name"),
        ('arch,a\n"{0},1\n', "not CSV"),
        ("ks,e,d,r,a\nx,1,2,3,4\n", "line 2: d is '2'|line 2: ks is 'x'"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, content: str, match: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content.format(*(arch.text for arch in CELL.sample(2))))
    assert "t.csv" in refused(path, match=match)


def test_a_row_of_another_space_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    texts = [arch.text for arch in CELL.sample(40)]
    path.write_text("arch,a\n" + "".join(f"{text},1\n" for text in [*texts, "|bad~0|+||"]))
    refused(path, match=r"t\.csv, line 42: nasbench201")
    refused(path, match=r"t\.csv, line 2: fbnet", space="fbnet")
    refused(path, match="unknown", space="nowhere")


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    refused(tmp_path / "none.csv", match="cannot read .*none.csv: No such file")
    assert "/*" in refused(tmp_path, match="is a folder")
    for name, content in [("a.bin", b"what"), ("b.parquet", b"PAR1" + b"x" * 50), ("c.csv", b"\xff\xfe\x00")]:
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, match=name)


def test_separators_and_byte_order_marks(tmp_path: Path) -> None:
    text = CELL.sample(1)[0].text
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfarch;pi 4\n" + text.encode() + b";1.5\n")
    [table] = read_sources([tmp_path / "t.csv"])
    assert (table.name, labels(table)) == ("pi-4", {text: 1.5})


# The published files themselves


@pytest.mark.data
def test_published_files(data_folder: Path) -> None:
    originals = data_folder / "originals"

    def column(file: str, space: str, name: str) -> dict[str, float]:
        frame = pd.read_parquet(data_folder / file)
        archs = frame["arch"] if "arch" in frame else ["_".join(map(str, one)) for one in frame["ops"]]
        return {a: pytest.approx(v) for a, v in zip(archs, frame[name], strict=True) if v == v}

    [table] = read_sources([originals / "help_fbnet_arch.pt", originals / "help_fbnet_eyeriss.pt"])
    assert labels(table) == column("fbnet_latency_ms.parquet", "fbnet", "eyeriss")
    [eagle] = read_sources([originals / "eagle_mobile-dsp-snapdragon-675-hexagon-685-int8.pickle"])
    published = column(
        "nasbench201_eagle_latency_ms.parquet", "nasbench201", "mobile_dsp_snapdragon_675_hexagon_685_int8"
    )
    assert labels(eagle) == published
    # The order of operations and edges, without the table: what has no path from input to output is missing.
    assert not any(CELL.is_constant(arch) for arch in eagle.archs)
    everywhere = {op: labels(eagle)[CELL.from_genes([op] * 6).text] for op in (1, 2, 3)}
    assert everywhere[1] < everywhere[2] < everywhere[3]

    encoder, decoder = read_sources([originals / "hat_wmt14ende_cpu_xeon_all.csv"])
    assert (len(encoder.archs), len(decoder.archs)) == (530, 1905)
    [note10] = read_sources([originals / "ofa_note10_160_lookup_table.yaml"])
    assert (note10.name, note10.space) == ("ofa_note10", "ofa-mobilenetv3-w1.2")
    assert {arch.genes[0] for arch in note10.archs} == {160}


@pytest.mark.data
def test_published_tables(data_folder: Path) -> None:
    tables = read_sources([data_folder / "nasbench201_latency_ms.parquet"])
    assert [len(table.archs) for table in tables] == [15625] * 24
    assert len(read_sources([data_folder / "fbnet_latency_ms.parquet"], space="fbnet")) == 27
    assert len(read_sources([data_folder / "ofa_mobilenetv3_latency_ms.parquet"], space=OFA.name)) == 12
