"""Tests of the report: what it shows, that missing parts and hostile text do no harm, that it is one closed file."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from latlab.harness.errors import BadInputError
from latlab.harness.quality.stage_times import stages
from latlab.harness.report import Headline, ReportData, theme, write_report
from latlab.harness.report.conclusion import tiles, verdict
from latlab.harness.report.page import render
from latlab.harness.report.space_map import CELL_PX, hexagons
from latlab.harness.report.svg import inline_svg
from latlab.harness.text import clean, duration, millions, ms, percent, tick

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
COST = {"none": 0.0, "skip_connect": 0.02, "nor_conv_1x1": 0.13, "nor_conv_3x3": 0.62, "avg_pool_3x3": 0.11}
MACS = {"none": 0.0, "skip_connect": 0.0, "nor_conv_1x1": 2.5e6, "nor_conv_3x3": 20.4e6, "avg_pool_3x3": 0.0}


def campaign(samples: int = 20, holdout: int = 200, space: int = 4000, failed: int = 3, seed: int = 0) -> ReportData:
    """Return an invented result of `latlab onboard` on a slightly noisy machine.

    Costs of NAS-Bench-201's operations add up to the latency, bursts disturb some runs, the device slows
    down by 3 % on the way, and the predictor is off by some 4 %.
    """
    rng = np.random.default_rng(seed)
    chance = random.Random(seed)

    def network() -> tuple[str, float, float]:
        cell = [chance.choice(OPERATIONS) for _ in range(6)]
        a, b, c, d, e, f = cell
        arch = f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"
        true = 0.55 + sum(COST[op] for op in cell) + 0.06 * sum(op != "none" for op in cell)
        return arch, true, 13.3e6 + sum(MACS[op] for op in cell)

    def guess(true: float) -> tuple[float, float]:
        return true * float(np.exp(rng.normal(0, 0.045))), true * 0.045

    rows: list[dict[str, object]] = []
    predicted: list[dict[str, object]] = []
    roles = ["train"] * samples + ["holdout"] * holdout + ["holdout"] * failed
    for number, role in enumerate(roles, start=1):
        arch, true, macs = network()
        row: dict[str, object] = {
            "arch": arch,
            "role": role,
            "order": number,
            "macs": macs,
            "params": macs / 110,
        }
        row |= {"build_s": 0.05, "export_s": 0.21 + rng.gamma(2, 0.05), "parity_s": 0.06, "push_s": 0.004}
        if number > samples + holdout:
            row |= {
                "status": "unsupported_op",
                "error": "Could not find an implementation for the node 'Foo_3'",
            }
            rows.append(row)
            continue
        drift = 1 + 0.03 / (1 + np.exp((samples + holdout * 0.6 - number) / 4))
        passes = []
        for _ in range(5):
            run = true * drift * float(np.exp(rng.normal(0, 0.012))) * (1 + rng.gamma(1.2, 0.008, 10))
            if rng.random() < 0.06:
                run[rng.integers(10) :] *= 1 + rng.gamma(1.5, 0.05)
            run[rng.random(10) < 0.01] *= 1.8
            passes.append((run * 1e6).astype(int).tolist())
        means = np.array([np.sort(one)[1:-1].mean() for one in passes]) / 1e6
        latency, error = float(np.median(means)), float(means.std(ddof=1) / np.sqrt(5))
        spent = sum(map(sum, passes)) / 1e9
        row |= {"status": "ok", "latency_ms": latency, "stderr_ms": error, "passes": passes, "error": None}
        row |= {"load_s": 0.01 + rng.gamma(2, 0.004), "warm_s": spent / 5, "measure_s": spent}
        rows.append(row)
        mean, deviation = guess(true)
        predicted.append(
            {"arch": arch, "latency_ms": latency, "predicted_ms": mean, "std_ms": deviation, "role": role}
            | {"lower_ms": mean - 1.645 * deviation, "upper_ms": mean + 1.645 * deviation}
        )
    counts = np.arange(4, samples + 1)
    last = len(counts) - 1
    curve = pd.DataFrame({"n": counts, "loo_spearman": 1 - 0.9 / counts - rng.gamma(1, 0.08 / counts**0.5)})
    curve["loo_mape_percent"] = 4 + 60 / counts + rng.normal(0, 0.8, len(counts))
    curve["holdout_spearman"] = [0.962 if i == last and holdout else np.nan for i in range(len(counts))]
    drawn = []
    for _ in range(space):
        arch, true, macs = network()
        mean, deviation = guess(true)
        drawn.append({"arch": arch, "macs": macs, "predicted_ms": mean, "std_ms": deviation, "measured": False})
    fastest = pd.DataFrame(drawn).drop_duplicates("arch").nsmallest(10, "predicted_ms") if drawn else pd.DataFrame()
    if drawn:
        fastest = fastest.assign(
            lower_ms=lambda f: f["predicted_ms"] - 1.645 * f["std_ms"],
            upper_ms=lambda f: f["predicted_ms"] + 1.645 * f["std_ms"],
            measured_ms=[0.547, *[None] * (len(fastest) - 1)],
            stderr_ms=0.003,
        )
    table = pd.DataFrame(rows)
    device_s = float(table[["measure_s", "warm_s"]].sum().sum())
    return ReportData(
        target="local/onnxruntime/cpu/fp32/t1/b1",
        space="nasbench201",
        facts={
            "CPU": "AMD EPYC 7B13, 2 cores, governor performance",
            "Operating system": "Debian GNU/Linux 12, Linux 6.1.0-18-cloud-amd64",
            "Runtime": "onnxruntime 1.31.1, CPUExecutionProvider, 1 thread",
            "Policy": "default: 5 passes of 2 + 10 runs, 10 % trimmed at each end",
            "Predictor": "ridge 1",
            "Seed": str(seed),
            "Started": "2026-03-02 10:15:42 UTC",
            "Ended": "2026-03-02 10:19:23 UTC",
            "Store": "latlab.db",
        },
        headline=Headline(
            failed=failed,
            holdout_spearman=0.962,
            holdout_retest_spearman=0.974,
            holdout_mape_percent=4.21,
            holdout_within_10_percent=94.5,
            coverage_90=0.885,
            wall_s=round(device_s / 0.64, 1),
            timing_share=0.64,
        ),
        measurements=table,
        predictions=pd.DataFrame(predicted),
        learning_curve=curve,
        space_sample=pd.DataFrame(drawn),
        fastest=fastest,
        fastest_of="The 10 fastest of all 15,625 networks of the space, 220 of them measured.",
        files=[("The predictor is in", "predictor/")],
        notes=["The CPU governor is 'powersave': latencies may change with the load. `latlab doctor` tells more."],
    )


HOSTILE = "<script>alert(1)</script>\"' onload=x &amp; </title></svg><img src=http://evil.example/x>"


class Outline(HTMLParser):
    """Checks that every element that was opened is closed in turn, and remembers tags, references and text."""

    VOID = ("meta", "link", "img", "br", "wbr", "hr", "input")

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"<{tag} {name}>"
            if (tag, name) == ("a", "href"):
                self.links.append(value or "")
            elif name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def drawings(text: str) -> list[ET.Element]:
    """Every inline SVG, parsed as strictly as XML is."""
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)]


def check(text: str) -> Outline:
    """Assert what must hold of every report, whatever its content."""
    outline = Outline(text)
    charts = [svg for svg in drawings(text) if svg.get("role") == "img"]
    assert all(svg.get("aria-label") for svg in charts)
    assert "script" not in outline.tags
    assert all(reference.startswith("#") for reference in outline.references), "something is fetched"
    assert all(link.startswith("./") and ":" not in link for link in outline.links), "a link leaves the folder"
    assert len(outline.ids) == len(set(outline.ids)), "two charts share an id"
    assert {reference[1:] for reference in outline.references} <= set(outline.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(outline.ids)
    assert not re.search(r"url\((?!#)|@import", text)
    assert not re.search(r"\b(nan|inf|None|NaT)\b", outline.text), "a missing number is shown as one"
    for svg in charts:
        assert not re.search(r"#[0-9a-f]{6}", ET.tostring(svg, encoding="unicode")), "colour of no scheme"
    return outline


@pytest.fixture(scope="module")
def full() -> ReportData:
    return campaign()


@pytest.fixture(scope="module")
def page(full: ReportData) -> str:
    return render(full)


def test_full_report_shows_every_chart_and_figure(page: str) -> None:
    text = check(page).text
    for heading in (
        "Predicted against measured",
        "What each further sample brought",
        "Where the samples lie in the space",
        "Fastest and slowest of 220 networks measured",
        "Noisiest",
        "Did the device change on the way?",
        "Do the passes agree?",
        "Where the time went",
        "Could not find an implementation for the node 'Foo_3'",
        "AMD EPYC 7B13",
        "The CPU governor is 'powersave'",
    ):
        assert heading in text
    for figure in ("0.962", "0.974", "4.2", "94", "88", "220"):
        assert figure in text


def test_the_fastest_predicted_networks_are_listed_with_their_labels(full: ReportData, page: str) -> None:
    text = page.replace("<wbr>", "")
    outline = check(page)
    assert full.fastest_of in outline.text
    for row in full.fastest.to_dict("records"):
        ends = f"{ms(row['lower_ms'])} – {ms(row['upper_ms'])}"
        assert f'{row["arch"]}</td><td class="number"><b>{ms(row["predicted_ms"])}</b></td>' in text
        assert f'<td class="number">{ends}</td>' in text
    assert text.count('0.547 <span class="faint">± 0.55 %</span>') == 1
    assert outline.links == ["./predictor/"]


def test_a_simulated_target_is_said_in_title_and_heading(small: ReportData) -> None:
    assert "simulated" not in render(small).lower()
    text = render(replace(small, headline=replace(small.headline, simulated=True)))
    for tag in ("title", "h1"):
        assert "(simulated)" in re.findall(rf"<{tag}>(.*?)</{tag}>", text)[0], tag


def scaled(data: ReportData, factor: float) -> ReportData:
    """Return a campaign on a device that takes `factor` times as long."""

    def slower(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.assign(**{name: frame[name] * factor for name in frame if str(name).endswith("_ms")})
        if "passes" not in frame:
            return frame
        passes = [
            [[run * factor for run in one] for one in row] if isinstance(row, list) else row for row in frame["passes"]
        ]
        return frame.assign(passes=passes)

    names = ("measurements", "predictions", "space_sample", "fastest")
    return replace(data, **{name: slower(getattr(data, name)) for name in names})


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "µs"), (1, "ms"), (1e5, "s")])
def test_units_fit_everywhere(small: ReportData, factor: float, unit: str) -> None:
    data = scaled(small, factor)
    for shown in (data, _only(data, measurements=data.measurements)):
        page = render(replace(shown, headline=Headline()))
        # Text of the page and of tooltips; words in charts are elements of their own.
        words = check(page).text + " ".join("".join(svg.itertext()) for svg in drawings(page))
        units = set(re.findall(r"(?:latency|measured|predicted), (µs|ms|s)\b", words, flags=re.IGNORECASE))
        assert units == {unit}
        assert not re.search(r"(?<![\d.,])0(\.0+)? (µs|ms|s)\b", words), "a latency is shown as none"
        assert not re.search(r"\b0\.00\d* (µs|ms|s)\b|\d{3},\d{3} (µs|ms|s)\b", words), "a unit does not fit"


def test_the_only_address_in_the_file_is_the_svg_namespace(page: str) -> None:
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}


def test_points_have_tooltips_with_architecture_and_values(full: ReportData, page: str) -> None:
    titles = [title.text or "" for svg in drawings(page) for title in svg.iter() if title.tag.endswith("title")]
    for _, row in full.predictions.iterrows():
        measured, predicted = f"measured {ms(row['latency_ms'])} ms", f"predicted {ms(row['predicted_ms'])} ms"
        found = [t for t in titles if row["arch"] in t and measured in t and predicted in t]
        assert len(found) >= 2, "in the plot of predictions and in the plot of their errors"
    assert sum("unsupported_op" in title for title in titles) == 3


def test_tooltips_are_left_out_rather_than_shifted_when_points_are_missing() -> None:
    with theme.style():
        fig = theme.figure(100, 100)
        fig.subplots().scatter([1, 2, np.nan], [1, 2, 3], gid="dots")
        assert "<title" not in inline_svg(fig, "x", "label", {"dots": ["a", "b", "c"]})
        fig = theme.figure(100, 100)
        fig.subplots().scatter([1, 2, 3], [1, 2, 3], gid="dots")
        assert inline_svg(fig, "x", "label", {"dots": ["a", "b", "c"]}).count("<title") == 3


@pytest.mark.parametrize("holdout", [0, 40])
def test_foreign_text_is_escaped_everywhere(holdout: int) -> None:
    data = campaign(samples=12, holdout=holdout, space=50)
    attacked = {}
    for name in ("measurements", "predictions", "space_sample", "fastest"):
        frame = getattr(data, name).copy()
        frame["arch"] = [f"{arch}{HOSTILE}" for arch in frame["arch"]]
        for column in ("error", "status", "role"):
            if column in frame and column != "role":
                frame.loc[frame["status"] != "ok", column] = HOSTILE
        attacked[name] = frame
    text = render(
        replace(
            data,
            target=HOSTILE,
            space=HOSTILE,
            facts={HOSTILE: HOSTILE},
            notes=[HOSTILE],
            measurements=attacked["measurements"],
            predictions=attacked["predictions"],
            space_sample=attacked["space_sample"],
            fastest=attacked["fastest"],
            fastest_of=HOSTILE,
            files=[(HOSTILE, HOSTILE), ("x", "javascript:alert(1)"), ("x", "//evil.example/x")],
        )
    )
    outline = check(text)
    assert "<script" not in text
    assert "<img" not in text
    assert "alert(1)" in outline.text
    titles = [t.text or "" for svg in drawings(text) for t in svg.iter() if t.tag.endswith("title")]
    assert any("<script>alert(1)</script>" in title for title in titles), "text, once parsed, is what it was"


def test_control_characters_and_broken_unicode_do_not_break_the_page(tmp_path: Path) -> None:
    dirt = "\x1b[31mred\x1b[0m \x00 \x07 \ud800 \ufffe \u202egnp"
    data = campaign(samples=10, holdout=0, space=0)
    rows = data.measurements.copy()
    # Dtype object: pandas' own strings cannot hold half a surrogate pair.
    rows["arch"] = pd.Series([f"{arch}{dirt}" for arch in rows["arch"]], dtype=object)
    rows["error"] = pd.Series([dirt] * len(rows), dtype=object)
    path = write_report(replace(data, measurements=rows, notes=[dirt], facts={"x": dirt}), tmp_path / "r.html")
    text = path.read_bytes().decode("utf-8")
    check(text)
    assert "red" in text
    assert not re.search("[\x00\x07\x1b\u202e]", text)


def _only(
    data: ReportData,
    measurements: pd.DataFrame | None = None,
    predictions: pd.DataFrame | None = None,
    learning_curve: pd.DataFrame | None = None,
    space_sample: pd.DataFrame | None = None,
) -> ReportData:
    def given(frame: pd.DataFrame | None) -> pd.DataFrame:
        return pd.DataFrame() if frame is None else frame

    return ReportData(
        target=data.target,
        space=data.space,
        measurements=given(measurements),
        predictions=given(predictions),
        learning_curve=given(learning_curve),
        space_sample=given(space_sample),
    )


def _failed(data: ReportData) -> ReportData:
    rows = data.measurements
    return _only(data, measurements=rows[rows["status"] != "ok"])


def _column(name: str, value: object) -> Callable[[ReportData], ReportData]:
    def change(data: ReportData) -> ReportData:
        rows = data.measurements.copy()
        rows[name] = pd.Series([value] * len(rows), index=rows.index, dtype=object)
        return replace(data, measurements=rows)

    return change


SUBSETS: dict[str, Callable[[ReportData], ReportData]] = {
    "nothing": _only,
    "one measurement": lambda d: _only(d, measurements=d.measurements.head(1)),
    "two measurements": lambda d: _only(d, measurements=d.measurements.head(2)),
    "measurements only": lambda d: _only(d, measurements=d.measurements),
    "all failed": _failed,
    "one failed": lambda d: replace(_failed(d), measurements=_failed(d).measurements.head(1)),
    "predictions only": lambda d: _only(d, predictions=d.predictions),
    "one prediction": lambda d: _only(d, predictions=d.predictions.head(1)),
    "hold-out only": lambda d: _only(d, predictions=d.predictions[d.predictions["role"] == "holdout"]),
    "learning curve only": lambda d: _only(d, learning_curve=d.learning_curve),
    "one refit": lambda d: replace(d, learning_curve=d.learning_curve.head(1)),
    "space only": lambda d: _only(d, space_sample=d.space_sample),
    "one of the space": lambda d: _only(d, space_sample=d.space_sample.head(1)),
    "no fastest": lambda d: replace(d, fastest=pd.DataFrame(), fastest_of="", files=()),
    "one of the fastest": lambda d: replace(d, fastest=d.fastest.head(1)),
    "fastest without intervals": lambda d: replace(d, fastest=d.fastest[["arch", "predicted_ms"]]),
    "files only": lambda d: replace(_only(d), files=d.files),
    "figures only": lambda d: replace(_only(d), headline=d.headline),
    "figures that are NaN": lambda d: replace(d, headline=Headline(holdout_spearman=np.nan, coverage_90=np.nan)),
    "curve without numbers": lambda d: replace(d, learning_curve=d.learning_curve.assign(loo_spearman=np.nan)),
    "no hold-out": lambda d: replace(
        d, headline=Headline(), predictions=d.predictions[d.predictions["role"] == "train"]
    ),
    "no intervals": lambda d: replace(d, predictions=d.predictions.drop(columns=["lower_ms", "upper_ms", "std_ms"])),
    "intervals below zero": lambda d: replace(d, predictions=d.predictions.assign(lower_ms=-1.0)),
    "no passes": _column("passes", None),
    "empty passes": _column("passes", []),
    "one pass": _column("passes", [[1_000_000, 1_100_000, 990_000] * 5]),
    "one sample": _column("passes", [[1_000_000]]),
    "all alike": _column("latency_ms", 1.5),
    "latency of zero": _column("latency_ms", 0.0),
    "no standard errors": _column("stderr_ms", None),
    "no MACs": _column("macs", np.nan),
    "no order": _column("order", None),
    "no times": lambda d: replace(
        d, measurements=d.measurements.drop(columns=[c for c in d.measurements if str(c).endswith("_s")])
    ),
    "infinite": _column("latency_ms", float("inf")),
    "bare columns": lambda d: _only(d, measurements=d.measurements[["arch", "status", "latency_ms"]]),
}


@pytest.fixture(scope="module")
def small() -> ReportData:
    return campaign(samples=12, holdout=20, space=200)


@pytest.mark.parametrize("subset", SUBSETS)
def test_any_part_may_be_missing(small: ReportData, subset: str) -> None:
    data = SUBSETS[subset](small)
    before = data.measurements.copy()
    text = check(render(data)).text
    assert verdict(data) in text
    pd.testing.assert_frame_equal(data.measurements, before)


def test_every_architecture_that_failed_is_named(small: ReportData) -> None:
    failed = small.measurements[small.measurements["status"] != "ok"]
    text = render(_failed(small)).replace("<wbr>", "")
    assert all(arch in text for arch in failed["arch"])
    many = pd.concat([failed] * 100, ignore_index=True)
    text = check(render(_only(small, measurements=many))).text
    assert "300 unsupported_op; the first 50 are listed, 250 more are in the store" in text


def test_same_data_same_bytes_in_another_process(page: str) -> None:
    code = (
        "import sys, runpy; d = runpy.run_path(sys.argv[1]);"
        "sys.stdout.buffer.write(d['render'](d['campaign']()).encode())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, __file__],
        capture_output=True,
        check=True,
        timeout=120,
        env=os.environ | {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"},
    )
    assert run.stdout == page.encode()


def test_settings_of_the_caller_neither_matter_nor_change(page: str, full: ReportData) -> None:
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert render(full) == page
        assert mpl.rcParams["font.size"] == 30


def test_small_enough_to_mail() -> None:
    assert len(render(campaign(space=15_625)).encode()) < 500_000
    assert len(render(campaign(samples=1000, holdout=2000, space=15_625)).encode()) < 1_500_000


def test_written_whole_or_not_at_all(tmp_path: Path, small: ReportData) -> None:
    path = tmp_path / "new" / "folder" / "report.html"
    assert write_report(_only(small), path) == path
    first = path.read_bytes()
    assert write_report(small, path).read_bytes() != first
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]
    (tmp_path / "blocked").write_text("a file where a folder is needed")
    with pytest.raises(BadInputError, match="blocked"):
        write_report(small, tmp_path / "blocked" / "report.html")
    (tmp_path / "taken").mkdir()
    with pytest.raises(BadInputError, match="taken"):
        write_report(small, tmp_path / "taken")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["blocked", "new", "taken"]


HEAD = Headline(holdout_spearman=0.95, holdout_retest_spearman=0.955, holdout_mape_percent=4.0, coverage_90=0.9)


@pytest.mark.parametrize(
    ("headline", "words"),
    [
        (HEAD, "limited by the noise of the measurements, no longer by the predictor"),
        (replace(HEAD, holdout_retest_spearman=0.975), "little is left to gain"),
        (replace(HEAD, holdout_retest_spearman=0.99), "the limit is the predictor, not the noise"),
        (replace(HEAD, holdout_retest_spearman=None), "how much of this is noise is not known"),
        (replace(HEAD, coverage_90=0.75), "error bars are too narrow: 75 % of the networks"),
        (replace(HEAD, coverage_90=0.99), "error bars are too wide"),
        (replace(HEAD, holdout_spearman=None), "On 200 networks it never saw, the predictor is off by 4.0 %"),
    ],
)
def test_verdict_says_what_limits_the_predictor(full: ReportData, headline: Headline, words: str) -> None:
    assert words in verdict(replace(full, headline=headline))


def test_verdict_keeps_quiet_about_what_chance_explains(full: ReportData, small: ReportData) -> None:
    assert "error bars" not in verdict(replace(full, headline=replace(HEAD, coverage_90=0.87)))
    assert "error bars" not in verdict(replace(small, headline=replace(HEAD, coverage_90=0.8)))
    assert "With 20 hold-out networks only, these figures are rough" in verdict(replace(small, headline=HEAD))
    assert "rough" not in verdict(replace(full, headline=HEAD))


def test_verdict_without_a_predictor_or_a_hold_out(small: ReportData) -> None:
    rows = small.measurements.head(2).assign(latency_ms=[2.0, 3.0], stderr_ms=[0.02, 0.03])
    both = _only(small, measurements=rows)
    assert verdict(both) == (
        "2 networks were measured, from 2.00 to 3.00 ms, a factor of 1.5. The typical standard error is 1.0 %."
    )
    one = _only(small, measurements=rows.head(1))
    assert verdict(one) == "One network was measured: 2.00 ms, with a standard error of 1.0 %."
    assert "all 3 networks failed" in verdict(_failed(small))
    trained = _only(small, predictions=small.predictions[small.predictions["role"] == "train"])
    assert "No hold-out was measured" in verdict(trained)
    assert "Spearman" not in verdict(replace(trained, train_predictions="in-sample")), "it would flatter"


def test_leave_one_out_or_in_sample_is_said(small: ReportData) -> None:
    assert "samples (leave-one-out)" in check(render(small)).text
    assert "samples (in-sample)" in check(render(replace(small, train_predictions="in-sample"))).text


def test_tiles_fit_one_line(full: ReportData, small: ReportData) -> None:
    for data in (full, small, _failed(small), _only(small), _only(small, measurements=small.measurements)):
        assert 1 <= len(tiles(data)) <= 6
    assert [tile.value for tile in tiles(full)][:5] == ["0.962", "4.2", "94", "88", "220"]
    assert any("3 failed" in tile.note for tile in tiles(full))


def test_shares_of_the_stages_add_up() -> None:
    rows = pd.DataFrame({f"{name}_s": [1.0, 3.0] for name in ("build", "export", "parity", "push")})
    rows = rows.assign(load_s=2.0, warm_s=np.nan, measure_s=[4.0, np.nan])
    found = {stage.name: stage for stage in stages(rows)}
    assert list(found) == ["build", "export", "parity check", "push", "load", "measure"]
    assert found["measure"].share == pytest.approx(4 / 24)
    assert sum(stage.share for stage in found.values()) == pytest.approx(1)
    assert stages(rows.iloc[:0]) == []


def test_a_network_of_two_sessions_counts_once(small: ReportData) -> None:
    again = small.measurements[small.measurements["role"] == "holdout"].assign(latency_ms=lambda f: f["latency_ms"] * 3)
    twice = replace(small, measurements=pd.concat([small.measurements, again], ignore_index=True))
    (one,), (two,) = ([t for t in tiles(d) if t.label == "Networks measured"] for d in (small, twice))
    assert (one.value, one.note) == (two.value, two.note)
    assert f"Fastest and slowest of {one.value} networks" in check(render(twice)).text
    arch = again["arch"].iloc[0]
    latency, error = again["latency_ms"].iloc[0] / 3, again["stderr_ms"].iloc[0]
    row = twice.networks().set_index("arch").loc[arch]
    assert row["latency_ms"] == pytest.approx(2 * latency)
    assert row["stderr_ms"] == pytest.approx(error / 2**0.5)


def test_simulated_time_is_no_share_of_the_wall_clock(small: ReportData) -> None:
    real = replace(small, headline=Headline(wall_s=10.0, timing_share=0.64))
    assert tiles(real)[-1].note == "this run, 64 % of it timing"
    simulated = replace(small, headline=Headline(wall_s=10.0, timing_share=1.6, simulated=True))
    assert tiles(simulated)[-1].note == "this run, 16 s simulated"


def test_hexagons_hold_every_network_in_the_nearest_cell() -> None:
    places = np.random.default_rng(0).uniform(0, 300, (2000, 2))
    centres, counts = hexagons(places, CELL_PX)
    assert counts.sum() == 2000
    distance = np.linalg.norm(places[:, None] - centres[None], axis=2)
    # The corner of a hexagon is its farthest point: width / sqrt(3) from the centre.
    assert distance.min(axis=1).max() <= CELL_PX / np.sqrt(3) + 1e-9
    assert np.array_equal(np.bincount(distance.argmin(axis=1), minlength=len(centres)), counts)


@pytest.mark.parametrize(("low", "high"), [(0.9, 4.1), (1.0, 3.0), (0.012, 0.05), (3.0, 900.0), (1e-3, 1e6), (7, 23)])
def test_logarithmic_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = theme.log_ticks(low, high)
    assert 3 <= len(ticks) <= 7
    assert all(low <= value <= high for value in ticks)
    assert all(len(f"{value:.2e}".rstrip("0").replace("e", "")) and float(f"{value:.1e}") == value for value in ticks)
    assert ticks == sorted(set(ticks))


def test_numbers_are_written_for_people() -> None:
    assert [ms(v) for v in (0.01234, 0.5, 1.2345, 12.345, 123.45, 1234.5)] == [
        *("0.0123", "0.500", "1.23", "12.3", "123", "1,234"),
    ]
    assert [ms(v) for v in (99.96, 9.999, 1.2e-5)] == ["100", "10.0", "0.0000120"]
    assert ms(float("nan")) == "–"
    assert [percent(v) for v in (0.42, 4.21, 42.1)] == ["0.42", "4.2", "42"]
    assert [duration(v) for v in (0, 4e-6, 9.9e-5, 2e-4)] == ["0 s", "4.0 µs", "99 µs", "0.20 ms"]
    assert [duration(v) for v in (0.004, 4.2, 42, 59.7, 192, 7500)] == [
        *("4.0 ms", "4.2 s", "42 s", "1 min 00 s", "3 min 12 s", "2 h 05 min"),
    ]
    assert [millions(v) for v in (940, 94e4, 12.34e6, 1.5e9)] == ["940", "940\u202fk", "12.3\u202fM", "1.50\u202fG"]
    assert [tick(v) for v in (0.5, 2.0, 1500, 2e7)] == ["0.5", "2", "1,500", "20\u202fM"]
    assert clean("\x1b[1mbold\x1b[0m\x00") == "bold\ufffd"
    assert clean("abcdef", 4) == "abc…"


def _schemes() -> list[dict[str, str]]:
    css = (Path(theme.__file__).parent / "report.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)[:2]
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in (light, dark)]


def _luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_both_schemes_define_every_colour_with_enough_contrast(scheme: int) -> None:
    colours = _schemes()[scheme]
    assert set(theme.COLOURS) <= set(colours)

    def contrast(a: str, b: str) -> float:
        low, high = sorted((_luminance(colours[a]), _luminance(colours[b])))
        return (high + 0.05) / (low + 0.05)

    assert contrast("ink", "paper") >= 7
    assert contrast("muted", "paper") >= 4.5
    assert all(contrast(name, "paper") >= 4.5 for name in ("train", "holdout", "alarm"))
    assert contrast("measure", "warm") > 1.2, "neighbours in the bar differ in grey print too"


def test_commands_in_notes_are_set_as_such(small: ReportData) -> None:
    text = render(replace(small, notes=["see `latlab doctor` <b>", "a lone ` stays"]))
    assert "<li>see <code>latlab doctor</code> &lt;b&gt;</li>" in text
    assert "a lone ` stays" in text
