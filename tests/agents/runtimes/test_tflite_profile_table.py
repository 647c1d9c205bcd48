"""Tests of the reader of TFLite's table of operators, on tables as LiteRT and `benchmark_model` print them."""

from __future__ import annotations

import pytest

from latlab.agents.runtimes.tflite_profile_table import TableError, read_table

LITERT = """\
===================================================================== Run Order ======================================================================
                                                 [node type]    [start]    [first]   [avg ms]        [%]     [cdf%]   [mem KB] [times called]   [Name]
                      Delegate/Convolution (NHWC, F32) IGEMM      0.000      0.011      0.010    33.333%    33.333%      0.000             20   [Delegate]:0
                                Delegate/Static Reshape (NC)      0.000      0.000      0.000     0.000%    33.333%      0.000             20   [Delegate]:1
                                                 LOG_SOFTMAX      0.000      0.020      0.020    66.667%   100.000%      0.000             20   [Builtin]:1

============================================================== Top by Computation Time ===============================================================
"""  # noqa: E501
TABS = (
    "============================== Run Order ==============================\n"
    "\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]\n"
    "\t                QUANTIZE\t    0.199\t    0.203\t  1.328%\t  1.328%\t     0.000\t        1\t[tfl.quantize]:0\n"
    "\t Convolution (NHWC, QC8) DWConv\t    0.428\t    0.051\t  4.317%\t  8.304%\t     0.000\t       13\t"
    "Delegate/Convolution (NHWC, QC8) DWConv:1\n"
    "\n"
)
WHOLE = """\
============================== Run Order ==============================
                     [node type]                  [start]         [first]        [avg ms]            [%]          [cdf%]          [mem KB]      [times called]  [Name]
             TfLiteNnapiDelegate                    0.000          21.227          21.287        91.329%         91.329%             0.000              1       [a/BiasAdd, b/Relu]:71
                           SPLIT                   21.287           2.015           2.013         8.671%        100.000%             0.000              1       [c/split, c/split:1]

"""  # noqa: E501


def test_the_table_of_litert() -> None:
    rows = read_table(LITERT)
    assert [(row.kind, row.delegate) for row in rows] == [
        ("Convolution (NHWC, F32) IGEMM", "delegate"),
        ("Static Reshape (NC)", "delegate"),
        ("LOG_SOFTMAX", ""),
    ]
    assert [row.mean_ms for row in rows] == pytest.approx([0.2, 0, 0.4], rel=1e-4)
    assert rows[2].name == "[Builtin]:1"


def test_shares_make_rounded_times_exact() -> None:
    text = LITERT.replace("0.010    33.333%", "0.010    34.000%").replace("0.020    66.667%", "0.020    66.000%")
    assert [row.mean_ms for row in read_table(text)] == pytest.approx([0.204, 0, 0.396], rel=1e-4)
    other = LITERT.replace("0.010    33.333%", "0.010    99.000%")  # a share that the time contradicts does not count
    assert read_table(other)[0].mean_ms == pytest.approx(0.2, rel=1e-4)


def test_the_table_of_benchmark_model() -> None:
    rows = read_table("INFO: something\n" + TABS)
    assert [(row.kind, row.delegate) for row in rows] == [
        ("QUANTIZE", ""),
        ("Convolution (NHWC, QC8) DWConv", "delegate"),
    ]
    assert [row.mean_ms for row in rows] == pytest.approx([0.203, 13 * 0.051])


def test_a_delegate_without_details() -> None:
    whole, split = read_table(WHOLE)
    assert (whole.kind, whole.delegate, whole.name) == (
        "TfLiteNnapiDelegate",
        "TfLiteNnapiDelegate",
        "[a/BiasAdd, b/Relu]:71",
    )
    assert (split.kind, split.delegate, split.name) == ("SPLIT", "", "[c/split, c/split:1]")


def test_the_node_of_a_delegate_is_the_sum_of_the_operators_inside() -> None:
    inside = WHOLE.replace(" SPLIT", " Delegate/Split")
    assert [row.kind for row in read_table(inside)] == ["Split"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no table"),
        ("= Run Order =\n", "other columns"),
        (LITERT.partition("[Builtin]")[0], "cannot be read"),
        (LITERT.partition("\n\n")[0], "cut off"),
        (LITERT.replace("[avg ms]", "[mean]"), "other columns"),
        (LITERT.replace("0.010", "fast"), "cannot be read"),
        (LITERT.replace("0.010", "1e99"), "impossible"),
        (LITERT.replace("0.010", "-1.0"), "impossible"),
        (LITERT.replace("     20  ", "    2.5  ", 1), "no time"),
        (LITERT.replace("[Delegate]:0", "x" * 5000), "cannot be read"),
    ],
)
def test_tables_that_cannot_be_read(text: str, why: str) -> None:
    with pytest.raises(TableError, match=why):
        read_table(text)
