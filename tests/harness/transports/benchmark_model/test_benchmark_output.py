"""What is read from the output of `benchmark_model`: in all its formats, and from output that is broken."""

from __future__ import annotations

import re
import time

import benchmark_outputs as outputs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latlab.harness.transports.benchmark_model.output import (
    BenchmarkOutputError,
    BenchmarkResult,
    Delegation,
    Statistics,
    TooFewRunsError,
    parse_output,
)

GOOD = {name: text for name, text in vars(outputs).items() if name.startswith(("CURRENT", "OLD"))}


def parse(text: str, warmup: int = outputs.WARMUP, runs: int = outputs.RUNS) -> BenchmarkResult:
    return parse_output(text, warmup=warmup, runs=runs)


@pytest.mark.parametrize("name", GOOD)
def test_every_format(name: str) -> None:
    result = parse(GOOD[name])
    assert (result.warmup.count, result.inference.count) == (2, 10)
    assert result.inference.least <= result.inference.mean <= result.inference.most
    assert result.init_us > 1000
    assert result.first_us == result.warmup.first


def test_the_current_format() -> None:
    result = parse(outputs.CURRENT_CPU)
    assert result == BenchmarkResult(
        init_us=12750,
        first_us=14744,
        warmup=Statistics(2, 14744, 13520, 13520, 14744, 14132, 612, 13520, 14744, 14744),
        inference=Statistics(10, 14850, 13315, 13105, 15765, 13520.2, 470, 13105, 13498, 15765),
        delegations=(Delegation("XNNPACK", whole=False, operators=65, delegated=64, partitions=1),),
        rejected=(),
        nnapi_accelerators=(),
        unknown_flags="",
        memory_mib=14.8164,
    )


def test_loops_that_were_to_last_some_seconds() -> None:
    timed = outputs.CURRENT_CPU.replace("least 10 iterations and at least 0 s", "least 4 iterations and at least 1 s")
    assert timed != outputs.CURRENT_CPU
    assert parse_output(timed, warmup=2, runs=4, timed=(False, True)).inference.count == 10
    with pytest.raises(BenchmarkOutputError, match="10 timed runs, not the 4"):
        parse_output(timed, warmup=2, runs=4, timed=(True, False))
    warm = outputs.CURRENT_CPU.replace("least 2 iterations and at least 0 s", "least 1 iterations and at least 0.02 s")
    assert parse_output(warm, warmup=1, runs=10, timed=(True, False)).warmup.count == 2
    with pytest.raises(BenchmarkOutputError, match="2 warm-up runs, not the 1"):
        parse_output(warm, warmup=1, runs=10)


def test_loops_that_were_not_to_last_longer() -> None:
    capped = outputs.CURRENT_CPU.replace("least 10 iterations", "least 50 iterations")
    assert parse_output(capped, warmup=2, runs=50, capped=True).inference.count == 10
    with pytest.raises(TooFewRunsError):
        parse_output(capped, warmup=2, runs=50)


def test_older_formats() -> None:
    older, oldest = parse(outputs.OLDER_CPU), parse(outputs.OLDEST_CPU)
    assert older.inference == Statistics(10, 14850, 13315, 13105, 15765, 13520.2, 470)
    assert older.delegations == (Delegation("XNNPACK", whole=False, operators=None, delegated=64, partitions=2),)
    assert (oldest.init_us, oldest.first_us, oldest.inference.mean) == (9933, 127425, 66767.6)
    assert oldest.delegations == ()


@pytest.mark.parametrize(
    ("text", "delegate", "expected"),
    [
        (outputs.CURRENT_GPU, "GPU", Delegation("GPU", True, 65, 65, 1)),
        (outputs.CURRENT_GPU_PARTLY, "GPU", Delegation("GPU", False, 65, 54, 3)),
        (outputs.CURRENT_GPU_UNSUPPORTED, "GPU", None),
        (outputs.CURRENT_NNAPI, "NNAPI", Delegation("NNAPI", True, 65, 65, 1)),
        (outputs.CURRENT_NNAPI_REFUSED, "NNAPI", None),
        (outputs.CURRENT_NNAPI_REFUSED, "XNNPACK", Delegation("XNNPACK", True, 65, 65, 1)),
    ],
)
def test_what_a_delegate_took(text: str, delegate: str, expected: Delegation | None) -> None:
    result = parse(text)
    assert result.delegation(delegate) == expected
    assert (delegate in result.rejected) == (expected is None)


def test_what_it_says_besides() -> None:
    assert parse(outputs.CURRENT_NNAPI).nnapi_accelerators == ("google-edgetpu", "nnapi-reference")
    flags = "WARN: Unconsumed cmdline flags: --gpu_precision_loss_allowed=false\n"
    assert parse(flags + outputs.CURRENT_CPU).unknown_flags == "--gpu_precision_loss_allowed=false"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("count=10(all same) curr=13520.2", Statistics(10, *[13520.2] * 5, 0.0)),
        ("count=10(all same) curr=13520.2 p5=13520.2 median=13520.2 p95=13520.2", Statistics(10, *[13520.2] * 5, 0.0, *[13520.2] * 3)),  # noqa: E501
    ],
)  # fmt: skip
def test_samples_that_are_all_the_same(line: str, expected: Statistics) -> None:
    text = re.sub(r"count=10 .*", line, outputs.CURRENT_CPU)
    assert parse(text).inference == expected


@pytest.mark.parametrize("mean", ["0", "nan", "-nan"])
def test_no_warm_up(mean: str) -> None:
    text = outputs.CURRENT_CPU.replace("at least 2 iterations", "at least 0 iterations")
    text = re.sub(r"count=2 .*", "count=0", text)
    text = text.replace("First inference: 14744, Warmup (avg): 14132", f"First inference: 0, Warmup (avg): {mean}")
    result = parse(text, warmup=0)
    assert (result.warmup.count, result.first_us) == (0, 0)


def test_one_run() -> None:
    text = outputs.CURRENT_CPU.replace("at least 10 iterations", "at least 1 iterations")
    text = re.sub(r"count=10 .*", "count=1 curr=13520", text).replace("(avg): 13520.2", "(avg): 13520")
    assert parse(text, runs=1).inference == Statistics(1, *[13520.0] * 5, 0.0)


def test_averages_of_long_runs_are_printed_with_an_exponent() -> None:
    text = outputs.OLDER_CPU
    for short in ("14850", "13315", "13105", "15765"):
        text = text.replace(short, short + "000")
    text = text.replace("13520.2", "1.35202e+07")
    assert parse(text).inference.mean == 13_520_200


@pytest.mark.parametrize(("warmup", "runs"), [(2, 11), (2, 9), (1, 10), (0, 10)])
def test_another_number_of_runs_than_asked_for(warmup: int, runs: int) -> None:
    with pytest.raises(BenchmarkOutputError, match=r"runs, not the \d+ it was told"):
        parse(outputs.CURRENT_CPU, warmup, runs)


def test_fewer_runs_because_the_time_was_up() -> None:
    text = outputs.CURRENT_CPU.replace("count=10 ", "count=7 ")
    with pytest.raises(BenchmarkOutputError, match="it did 7 timed runs, not the 10"):
        parse(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("min=13105", "min=16000"),
        ("max=15765", "max=13000"),
        ("avg=13520.2", "avg=13000"),
        ("avg=13520.2", "avg=15800"),
        ("avg=13520.2", "avg=nan"),
        ("avg=13520.2", "avg=inf"),
        ("avg=13520.2", "avg=-13520.2"),
        ("avg=13520.2", "avg=13520.2 avg=13520.2"),
        ("avg=13520.2", "avg=1e999"),
        ("avg=13520.2", "avg="),
        ("min=13105 ", ""),
        ("std=470", "std=-1"),
        ("std=470", "std=99999"),
        ("first=14850", "first=20000"),
        ("curr=13315", "curr=1"),
        ("median=13498", "median=15800"),
        ("p5=13105", "p5=13499"),
        (" p95=15765", ""),
        ("count=10", "count=ten"),
        ("count=10", "count=-10"),
        ("count=10 first", "count=10(all same) first"),
        ("Inference (avg): 13520.2", "Inference (avg): 13620.2"),
        ("Inference (avg): 13520.2", "Inference (avg): nan"),
        ("Warmup (avg): 14132", "Warmup (avg): nan"),
        ("Warmup (avg): 14132", "Warmup (avg): 1"),
        ("First inference: 14744", "First inference: 14745"),
        ("Init: 12750", "Init: -1"),
        ("Init: 12750", "Init: 1e300"),
        ("Inference timings in us", "Inference timings in ms"),
        ("INFO: Running benchmark for at least 2", "INFO: Idling for at least 2"),
        ("INFO: count=2", "INFO: count=2 first=1 curr=1 min=1 max=1 avg=1 std=0\nINFO: count=2"),
        ("Replacing 64 out of 65", "Replacing 66 out of 65"),
        ("Explicitly applied XNNPACK", "Though XNNPACK delegate is explicitly applied, the model graph will not be "
         "executed by the delegate.\nINFO: Explicitly applied XNNPACK"),
    ],
)  # fmt: skip
def test_output_that_contradicts_itself(old: str, new: str) -> None:
    assert old in outputs.CURRENT_CPU
    with pytest.raises(BenchmarkOutputError):
        parse(outputs.CURRENT_CPU.replace(old, new))


@pytest.mark.parametrize("text", ["", "\n" * 1000, *outputs.CRASHES.values(), outputs.CURRENT_CPU * 2])
def test_output_that_tells_nothing(text: str) -> None:
    with pytest.raises(BenchmarkOutputError):
        parse(text)


@pytest.mark.parametrize("end", range(0, len(outputs.OLDER_CPU) - 200, 97))
def test_output_that_breaks_off(end: int) -> None:
    text = outputs.OLDER_CPU[:end]
    if "Inference (avg): 13520.2" not in text:
        with pytest.raises(BenchmarkOutputError):
            parse(text)


@pytest.mark.parametrize(
    "line",
    [
        "count=" + "1" * 4000,
        "count=10" + " a=1" * 1000,
        "count=10" + " " * 4000,
        "Inference timings in us: Init: " + "1." * 2000,
        "Explicitly applied " + "A" * 4000,
        "Running benchmark for at least 1 iterations and at least " + "0" * 4000,
        "INFO: " * 600,
        "NNAPI accelerators available: [" + "[" * 4000,
    ],
)
def test_nothing_takes_long(line: str) -> None:
    text = "\n".join([line] * (1_000_000 // len(line)))
    start = time.perf_counter()
    with pytest.raises(BenchmarkOutputError):
        parse(text)
    assert time.perf_counter() - start < 5


def test_too_much_output() -> None:
    with pytest.raises(BenchmarkOutputError, match="characters"):
        parse("x" * 2_000_000)


def never_nonsense(text: str) -> None:
    try:
        result = parse(text)
    except BenchmarkOutputError:
        return
    timed = result.inference
    assert timed.count == outputs.RUNS
    assert 0 <= timed.least <= timed.most <= 1e12
    assert timed.least * 0.999 <= timed.mean <= timed.most * 1.001


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=2000) | st.lists(st.sampled_from(outputs.CURRENT_CPU.split("\n"))).map("\n".join))
@example(outputs.CURRENT_CPU)
def test_anything_at_all(text: str) -> None:
    never_nonsense(text)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_good_output_with_a_piece_exchanged(name: str, data: st.DataObject) -> None:
    text = GOOD[name]
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 20))
    new = data.draw(st.text("0123456789.-+enaif=\n ", max_size=10))
    never_nonsense(text[:start] + new + text[start + length :])
