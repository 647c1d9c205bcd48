"""The fastest predicted networks of a report: which they are, of how many, and what they are beside."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latlab.harness.active_learning.latency_table import MeasuredLatency, latency_table, whole_space, with_measured
from latlab.harness.lab import Lab
from latlab.harness.report.fastest import MOST, fastest_networks
from latlab.predictors import Prediction
from latlab.search_spaces import Architecture, SearchSpace, get

DEAD = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"
"""A cell whose only convolution is on a dead edge."""


def table_of(space: SearchSpace, measured: dict[str, MeasuredLatency], as_written: bool = False) -> pd.DataFrame:
    """Return a latency table of a space, predicted from the multiplications and edges of what is exported."""
    archs = with_measured(space, whole_space(space), measured)
    seen = archs if as_written else [space.canonical(arch) for arch in archs]
    mean = np.array([1 + sum(layer.macs for layer in space.layers(a)) / 1e8 - a.text.count("none") / 1e3 for a in seen])
    return latency_table(archs, Prediction(mean, 0.1 * mean, 0.8 * mean, 1.2 * mean), measured)


def test_a_network_of_many_strings_is_listed_once_as_it_was_measured() -> None:
    space = get("nasbench201")
    table = table_of(space, {DEAD: MeasuredLatency(1.25, 0.05)})
    fastest, words = fastest_networks(table, space, space.canonical)
    assert list(fastest.columns) == ["arch", "predicted_ms", "lower_ms", "upper_ms", "measured_ms", "stderr_ms"]
    networks = [space.canonical(space.parse(arch)) for arch in fastest["arch"]]
    assert len(set(networks)) == len(networks) == MOST
    assert fastest["predicted_ms"].is_monotonic_increasing
    (one,) = fastest[fastest["measured_ms"].notna()].to_dict("records")
    assert (one["arch"], one["measured_ms"], one["stderr_ms"]) == (DEAD, 1.25, 0.05)
    others = [arch for arch in fastest["arch"] if arch != DEAD]
    assert others == [space.canonical(space.parse(arch)).text for arch in others], "not a twin with dead edges"
    best = table.drop_duplicates("latency_ms").nsmallest(1, "latency_ms")["latency_ms"].iloc[0]
    assert fastest["predicted_ms"].iloc[0] == best
    assert words == (
        "The 10 fastest of all 15,625 networks of the space, 1 of them measured. "
        "Strings that mean the same network are listed once."
    )


def test_networks_as_written_are_all_different() -> None:
    space = get("nasbench201")
    table = table_of(space, {}, as_written=True)

    def same(arch: Architecture) -> Architecture:
        return arch

    fastest, words = fastest_networks(table, space, same)
    expected = table.sort_values(["latency_ms", "arch"], kind="stable").head(MOST)
    assert list(fastest["arch"]) == list(expected["arch"])
    assert words == "The 10 fastest of all 15,625 networks of the space."


@pytest.mark.parametrize("measured", [0, 25])
def test_of_a_large_space_it_says_how_many_were_drawn(measured: int) -> None:
    space = get("fbnet")
    labels = {arch.text: MeasuredLatency(3.0, None) for arch in space.sample(measured, 77)}
    table = table_of(space, labels)
    fastest, words = fastest_networks(table, space, space.canonical)
    assert len(fastest) == MOST
    size = f"{space.size:.2g}".replace("e+", "e")
    end = ", among them all 25 measured" if measured else ""
    assert words.startswith(f"The 10 fastest of {10_000 + measured:,} of the space's {size} networks{end}.")


@pytest.fixture(scope="module")
def onboarded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Path]:
    folder = tmp_path_factory.mktemp("onboarded")
    inventory = folder / "inventory.yaml"
    inventory.write_text("devices:\n  pi: {transport: simulated, kind: pi4, pace: 0}\n")
    lab = Lab(folder / "latlab.db", inventory=inventory)
    lab.onboard("pi", space="nasbench201", budget=5, policy="quick", out=folder / "out")
    return lab, folder


def rows_of(page: str) -> list[str]:
    """Return the architectures of the page's table of the fastest."""
    (table,) = re.findall(r'<table class="networks fastest">.*?</table>', page, flags=re.DOTALL)
    return re.findall(r'<td class="arch">(.*?)</td>', table.replace("<wbr>", ""))


def test_an_onboarding_lists_the_fastest_of_its_table_and_links_to_its_files(onboarded: tuple[Lab, Path]) -> None:
    out = onboarded[1] / "out"
    page = (out / "report.html").read_text()
    table = pd.read_parquet(out / "latency_table.parquet")
    listed = table.set_index("arch").loc[rows_of(page), "latency_ms"]
    assert len(listed) == MOST
    assert listed.is_monotonic_increasing
    assert listed.iloc[0] == table["latency_ms"].min()
    assert "The 10 fastest of all 15,625 networks of the space, 5 of them measured." in page
    assert "Predicted without its own label" in page, "in the table of those measured: not what the other table shows"
    assert "distinct networks, drawn at random" in page
    links = re.findall(r'<a href="([^"]*)">', page)
    assert links == ["./latency_table.csv", "./latency_table.parquet", "./predictor/"]
    assert all((out / link).exists() for link in links)
    assert "(simulated)" in re.findall(r"<title>(.*?)</title>", page)[0]


def test_a_report_of_a_store_lists_them_too_and_links_to_nothing(onboarded: tuple[Lab, Path]) -> None:
    lab, folder = onboarded
    page = lab.report(out=folder / "again.html").read_text()
    assert rows_of(page) == rows_of((folder / "out" / "report.html").read_text())
    assert "5 of them measured" in page
    assert "<a " not in page
    assert all("(simulated)" in re.findall(rf"<{tag}>(.*?)</{tag}>", page)[0] for tag in ("title", "h1"))
