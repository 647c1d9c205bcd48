"""Tests of tables of encodings: the forms of others, and what is wrong in a damaged one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latlab.harness.encoding.tables import read_encoding_table, read_genes
from latlab.harness.errors import BadInputError
from latlab.search_spaces import get

CELLS, CHAINS = get("nasbench201"), get("fbnet")
FIRST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"


def test_own_tables_by_string_and_by_genes(tmp_path: Path) -> None:
    archs = CHAINS.sample(3, 0)
    frame = pd.DataFrame({"arch": [arch.text for arch in archs], "snip": [1.0, 2.0, np.nan], "mine": [0, 1, 2]})
    frame.to_parquet(tmp_path / "a.parquet")
    table = read_encoding_table(tmp_path / "a.parquet", CHAINS)
    assert list(table.columns) == ["snip", "mine"]
    assert np.array_equal(table(CHAINS.genes(archs[::-1]))[:, 1], [2, 1, 0])
    text = "ops,snip\n" + "".join(f'"{list(arch.genes)}",{i}\n' for i, arch in enumerate(archs))
    (tmp_path / "a.csv").write_text(text)
    assert np.array_equal(read_encoding_table(tmp_path / "a.csv", CHAINS).genes, CHAINS.genes(archs))


def test_row_numbers_count_in_the_table_of_latencies(tmp_path: Path) -> None:
    genes = CHAINS.genes(CHAINS.sample(5, 0))
    pd.DataFrame({"snip": [7.0, 8.0]}, index=pd.Index([3, 1], name="index")).to_parquet(tmp_path / "z.parquet")
    table = read_encoding_table(tmp_path / "z.parquet", CHAINS, genes)
    assert np.array_equal(table(genes[[1, 3]])[:, 0], [8, 7])
    with pytest.raises(BadInputError, match="row numbers instead of architectures"):
        read_encoding_table(tmp_path / "z.parquet", CHAINS)
    with pytest.raises(BadInputError, match="index is 3, which is no row of a table of 2"):
        read_encoding_table(tmp_path / "z.parquet", CHAINS, genes[:2])


def test_nas_bench_suite_zero_and_nasflat_latency(tmp_path: Path) -> None:
    """NASLib's (4, 0, 3, 1, 4, 3) is a pool, a skip, a 1x1, none, a pool and a 1x1, by source before node."""
    content = {"cifar10": {"(4, 0, 3, 1, 2, 3)": {"snip": {"score": 2.5, "time": 1}, "flops": {"score": 3}}}}
    (tmp_path / "zc.json").write_text(json.dumps(content))
    table = read_encoding_table(tmp_path / "zc.json", CELLS)
    expected = "|avg_pool_3x3~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|nor_conv_3x3~1|nor_conv_1x1~2|"
    assert [CELLS.from_genes(row).text for row in table.genes] == [expected]
    assert table.vectors.tolist() == [[2.5, 3.0]]
    (arch,) = CHAINS.sample(1, 0)
    (tmp_path / "fb.json").write_text(json.dumps({"_".join(map(str, arch.genes)): {"snip": 1.0, "zen": None}}))
    table = read_encoding_table(tmp_path / "fb.json", CHAINS)
    assert table.genes.tolist() == [list(arch.genes)]
    assert np.array_equal(table.vectors, [[1.0, np.nan]], equal_nan=True)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "arch,snip\nnonsense,1\n", "a.csv, line 2: nasbench201"),
        ("a.csv", f"arch,snip\n{FIRST},one\n", "snip is 'one', which is no number"),
        ("a.csv", f"arch,snip\n{FIRST},nan\n", "no number at all"),
        ("a.csv", f"arch,snip\n{FIRST},inf\n", "no number at all"),
        ("a.csv", f"arch,snip\n{FIRST},1\n{FIRST},2\n", "two different rows of one architecture"),
        ("a.csv", f"arch\n{FIRST}\n", "no column of numbers"),
        ("a.csv", "snip\n1\n", "does not say which architecture"),
        ("a.csv", "ops,snip\n\"[9,9,9,9,9,9]\",1\n", "genes are 6 operation indices"),
        ("a.csv", "ops,snip\n\"[1,2]\",1\n", "genes are 6 operation indices"),
        ("a.parquet", "PAR1 nothing", "not a Parquet file"),
        ("a.json", "{", "not a JSON file"),
        ("a.json", "[1]", "holds no encodings"),
        ("a.json", "{}", "holds no encodings"),
        ("a.json", '{"(0,0,0,0,0,0)": {"mine": 1}}', "none of the proxies"),
        ("a.json", '{"(0,0,0,0,0,0)": {"snip": "x"}}', "not a number of each of snip"),
        ("a.json", '{"(9,0,0,0,0,0)": {"snip": 1}}', "genes are 6 operation indices"),
        ("a.json", '{"x": {"(9,0,0,0,0,0)": {"snip": {"score": 1}}}}', "operations are numbers from 0 to 4"),
        ("a.json", "[" * 100_000, "not a JSON file"),
        ("none.csv", None, "cannot read the table"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, name: str, content: str | None, says: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInputError, match=says):
        read_encoding_table(path, CELLS)


def test_lists_of_architectures(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"# a comment\n{FIRST}\n\n0,1,2,3,4,0\n[3 3 3 3 3 3]\n")
    assert [arch.genes for arch in read_genes(CELLS, path)][1:] == [(0, 1, 2, 3, 4, 0), (3,) * 6]
    for content, says in (("", "holds no architecture"), ("1,2\n", r"line 1: .*6 operation"), ("\xff", "line 1")):
        path.write_text(content)
        with pytest.raises(BadInputError, match=says):
            read_genes(CELLS, path)
