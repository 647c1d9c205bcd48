"""Results on stdout. Progress on stderr is in `progress`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
from rich.markup import escape
from rich.table import Table

from latlab.harness.active_learning.target_labels import LATENCY, named_for
from latlab.harness.measurement.disturbance import disturbances
from latlab.harness.store.place import StorePath
from latlab.harness.store.provisional import how_to_finish
from latlab.harness.store.verdict_counts import in_words as verdicts_in_words
from latlab.harness.store.verdict_counts import verdict_counts
from latlab.harness.store.vocabulary import Selection, Status
from latlab.harness.terminal.console import MAX_ROWS, console, show_table
from latlab.harness.terminal.metric_text import text_of
from latlab.harness.terminal.progress import watching, working
from latlab.harness.text import count, in_words, latency_text, latency_unit, other_spaces_in_words

if TYPE_CHECKING:
    from latlab.harness.active_learning.onboarding_result import Onboarding
    from latlab.search_spaces import SearchSpace

__all__ = [
    "show_labels",
    "show_measurements",
    "show_onboarding",
    "show_prior",
    "show_sources",
    "show_spaces",
    "show_store",
    "watching",
    "working",
]

GAVE_UP = 0.1
"""Share of labels that are still wide after all passes, from which a hint says what would help."""
WIDE = 90
"""The least width of a terminal, in characters, that shows campaigns with policy, seed and the time of the last row."""


P99 = (
    "p99 needs 100 inferences of a network (p95 20, p90 10), passes x runs: --policy with one of the inventory's, "
    "for example `policies: {tails: {base: default, runs: 40}}`."
)
"""Where a percentile is missing: how it can be had."""


def show_onboarding(result: Onboarding) -> None:
    """Print the result of an onboarding; if most of its labels are disturbed, that comes first."""
    screen = console()
    _show_disturbances(result.measurements)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f} %"

    table.add_row("target", result.target)
    failed = f", {result.failed} failed" if result.failed else ""
    imported = f", and {result.imported:,} with imported labels" if result.imported else ""
    table.add_row("measured", f"{result.measured} networks of {result.space}{imported}{failed}")
    table.add_row("predictor", f"{escape(result.predictor)}; prior: {escape(in_words(result.sources))}")
    if result.other_spaces:
        table.add_row("other spaces", other_spaces_in_words(result.other_spaces))
    worry = "[yellow], noisy: does something else use the device? See latlab doctor[/yellow]" if result.noisy else ""
    verdicts = verdicts_in_words(verdict_counts(result.measurements))
    verdicts = f"; {verdicts}" if verdicts else ""
    table.add_row("labels", f"median standard error {result.label_noise_percent:.1f} %{worry}{verdicts}")
    table.add_row(
        "expected error",
        f"{result.expected_error_percent:.1f} % over the space (the predictor's own estimate)",
    )
    if result.expected_spearman is not None:
        table.add_row("expected ranks", result.expected_ranks)
    for goal in result.goals:
        table.add_row("goal", goal)
    if result.goals or result.stopped_by != "budget":
        table.add_row("stopped by", result.stopped_by)
    if result.loo_spearman is not None and result.loo_mape_percent is not None:
        table.add_row(
            "leave-one-out", f"Spearman {result.loo_spearman:.3f}, mean error {result.loo_mape_percent:.1f} %"
        )
    if result.holdout_spearman is not None:
        table.add_row(
            "hold-out",
            f"Spearman [bold]{result.holdout_spearman:.3f}[/bold] (two measurements of it agree to "
            f"{result.holdout_retest_spearman:.3f}), mean error {percent(result.holdout_mape_percent)}, "
            f"within 10 %: {percent(result.holdout_within_10_percent)}, "
            f"inside the 90 % interval: {percent(result.holdout_coverage_90_percent)}",
        )
    timing = f"{100 * result.timing_share:.0f} % of it timing networks"
    if result.simulated:
        timing = f"{result.timing_share * result.wall_s:.0f} s of simulated time timing networks"
    table.add_row("this run", f"{result.wall_s:.0f} s, {timing}")
    if result.failed:
        table.add_row("failures", "their reasons are in the report, and in latlab show")
    table.add_row("latency table", escape(str(result.latency_table)))
    table.add_row("report", f"[bold]{escape(str(result.report))}[/bold]")
    screen.print(table)


def show_predictions(table: pd.DataFrame, title: str, metric: str = LATENCY) -> None:
    """Print the first rows of a latency table, two lines for each network: its string is as long as a line.

    Args:
        metric: what the table predicts.
    """
    screen = console()
    table = table.rename(columns={new: old for old, new in named_for(metric).items()})
    screen.print(title, style="italic", highlight=False, markup=False)
    for row in table.head(MAX_ROWS).to_dict("records"):
        screen.print(row["arch"], markup=False, highlight=False)
        value, low, high = (text_of(row[name], metric) for name in ("latency_ms", "lower_ms", "upper_ms"))
        said = f"{value}, 90 % from {low} to {high}"
        if row.get("measured"):
            error = f" ± {text_of(row['stderr_ms'], metric)}" if pd.notna(row["stderr_ms"]) else ""
            said += f"; measured: {text_of(row['measured_ms'], metric)}{error}"
        screen.print(f"  {said}", highlight=False)
    if len(table) > MAX_ROWS:
        screen.print(f"... and {len(table) - MAX_ROWS:,} more; --json prints all, --out writes them", style="dim")


def show_prior(sources: Sequence[str], scope: str = "", other_spaces: Mapping[str, int] = {}) -> None:
    """Print the devices that the predictor was pre-trained on, other spaces, and what part of the space was predicted.

    Args:
        other_spaces: number of the target's labels that the predictor uses of each other space.
    """
    console().print(f"prior: {escape(in_words(sources))}", style="dim")
    if other_spaces:
        console().print(other_spaces_in_words(other_spaces), style="dim")
    if scope:
        console().print(f"predicted: {escape(scope)}", style="dim")


def show_labels(labels: pd.DataFrame) -> None:
    """Print a line per label with its percentiles, jitter and throughput.

    Networks come last, because their names are long; a narrow terminal folds them.
    """
    screen = console()
    for (target, space), group in labels.groupby(["target", "space"], sort=False):
        unit = latency_unit(group["latency_ms"])
        title = escape(f"{target} {space}, {unit.name}")
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", title=title, title_justify="left")
        for name in ("label", "p50", "p90", "p95", "p99", "jitter", "per s"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("network", overflow="fold")
        for row in group.head(MAX_ROWS).to_dict("records"):
            table.add_row(
                *(
                    "-" if pd.isna(row[name]) else unit.number(row[name])
                    for name in ("latency_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms")
                ),
                "-" if pd.isna(row["jitter_percent"]) else f"{row['jitter_percent']:.1f} %",
                "-" if pd.isna(row["throughput_per_s"]) else f"{row['throughput_per_s']:,.0f}",
                escape(str(row["arch"])),
            )
        screen.print(table)
        if len(group) > MAX_ROWS:
            screen.print(f"... and {len(group) - MAX_ROWS} more; --json prints all", style="dim")
    if (labels["p99_ms"].isna() & labels["p50_ms"].notna()).any():
        screen.print(P99, style="dim", soft_wrap=True)
    if labels["p50_ms"].isna().any():
        screen.print(
            "No percentiles: inferences too short to be timed one by one, or a program that prints only means.",
            style="dim",
            soft_wrap=True,
        )


def show_measurements(rows: pd.DataFrame, store: StorePath, *, raw: bool) -> None:
    """Print measured rows: one per architecture, or a summary of each target.

    If most of the labels are disturbed, that comes first.
    """
    screen = console()
    _show_disturbances(rows)
    targets = rows["target"].nunique()
    screen.print(_rows_of_one(rows, raw) if targets < 2 or raw else _rows_of_many(rows))
    spread = _distribution(rows.iloc[0]) if len(rows) == 1 else ""
    if spread:
        screen.print(escape(spread), highlight=False)
    if len(rows) > MAX_ROWS and targets < 2:
        screen.print(f"... and {len(rows) - MAX_ROWS} more; all are in {escape(str(store))}", style="dim")
    failed = int((rows["status"] != Status.OK).sum())
    kept = " (kept; --new-session tries again)" if (~rows["status"].isin([Status.OK, Status.DEVICE_LOST])).any() else ""
    lost = int((rows["status"] == Status.DEVICE_LOST).sum())
    again = f" {lost} were lost with their device: the same command measures them." if lost else ""
    screen.print(
        f"{len(rows) - failed} measured, {failed} failed{kept}{_noise(rows)}.{again} All is in {escape(str(store))}.",
        style="dim",
    )
    if hint := _gave_up(rows):
        screen.print(hint, style="yellow", highlight=False, soft_wrap=True)
    screen.print(f"`latlab export --store {escape(str(store))} --out measured.csv` writes it to a file.", style="dim")


def _show_disturbances(rows: pd.DataFrame) -> None:
    for one in disturbances(rows):
        console().print(f"[yellow]{escape(one.sentence)}[/yellow]", highlight=False, soft_wrap=True)


def _gave_up(rows: pd.DataFrame) -> str:
    """Return what to do about labels that are still wide after the most passes of their policy; "" if few are."""
    good = rows[rows["status"] == Status.OK]
    wide = int((good["verdict"] == "noisy").sum())
    policies = set(good["policy"]) if "policy" in good else set()
    if not wide or wide < GAVE_UP * len(good) or disturbances(rows):
        return ""
    thorough = "--policy thorough takes up to ten passes" if policies and policies <= {"default", "quick"} else ""
    compare = "`latlab compare` tells two networks apart, because they take turns"
    advice = "; ".join(one for one in (thorough, compare) if one)
    return f"{count(wide, 'label is', 'labels are')} still wide after all passes: {advice}."


def _distribution(row: pd.Series) -> str:
    """Return the percentiles, jitter and throughput of one label in words; empty if it has none."""
    parts = [
        f"{name.removesuffix('_ms')} {latency_text(row[name])}"
        for name in ("p50_ms", "p90_ms", "p95_ms", "p99_ms")
        if pd.notna(row.get(name))
    ]
    if parts and pd.isna(row.get("p99_ms")):
        parts.append("no p99 (it needs 100 inferences: more `runs` in a policy of the inventory)")
    if pd.notna(row.get("jitter_percent")):
        parts.append(f"jitter {row['jitter_percent']:.1f} % (interquartile range / median)")
    if pd.notna(row.get("throughput_per_s")):
        parts.append(f"{row['throughput_per_s']:,.1f} inputs a second")
    return ", ".join(parts)


def _noise(rows: pd.DataFrame) -> str:
    """Return the typical standard error, the targets on which it is too large, and how many labels are in doubt."""
    from latlab.harness.active_learning.onboarding_result import NOISY_PERCENT

    good = rows[rows["status"] == Status.OK]
    errors = (100 * good["stderr_ms"] / good["latency_ms"]).groupby(good["target"], sort=False).median().dropna()
    if errors.empty:
        return ""
    noisy = errors[errors > NOISY_PERCENT]
    where = f" on {', '.join(noisy.index)}" if len(noisy) and rows["target"].nunique() > 1 else ""
    worry = f" [yellow](noisy{escape(where)}: does something else use the device? See latlab doctor)[/yellow]"
    verdicts = verdict_counts(rows)
    doubts = f" ({verdicts_in_words(verdicts)})" if any(verdicts) else ""
    return f", median standard error {errors.median():.1f} %{worry if len(noisy) else ''}{doubts}"


def _rows_of_one(rows: pd.DataFrame, raw: bool) -> Table:
    """Return a table with a row per architecture."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("architecture", overflow="fold")
    for name in ("latency", "std. error", "status"):
        table.add_column(name, justify="left" if name == "status" else "right", no_wrap=name != "status")
    several = rows["target"].nunique() > 1
    good = rows[rows["status"] == Status.OK]
    unit, error_unit = latency_unit(good["latency_ms"]), latency_unit(good["stderr_ms"])
    for row in rows.head(MAX_ROWS).to_dict("records"):
        ok = row["status"] == Status.OK
        table.add_row(
            escape(f"{row['target']} {row['arch']}" if several else str(row["arch"])),
            unit.text(row["latency_ms"]) if ok else "-",
            error_unit.text(row["stderr_ms"]) if ok and pd.notna(row["stderr_ms"]) else "-",
            "ok" if ok else f"[red]{row['status']}[/red]: {escape(str(row['error']))}",
        )
        if raw:
            for number, samples in enumerate(row["passes"], 1):
                table.add_row(f"[dim]  pass {number}: {_samples(samples)}[/dim]")
    return table


def _samples(samples: Sequence[float]) -> str:
    """Return raw samples, in ns, in the unit that fits them."""
    values_ms = [one / 1e6 for one in samples]
    unit = latency_unit(values_ms)
    return f"{' '.join(f'{one * unit.per_ms:.3f}' for one in values_ms)} {unit.symbol}"


def _rows_of_many(rows: pd.DataFrame) -> Table:
    """Return a table with a row per target: how many networks were measured, and how fast they are."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("target", overflow="fold")
    for name in ("measured", "failed", "fastest", "median", "slowest", "std. error"):
        table.add_column(name, justify="right", no_wrap=True)
    unit = latency_unit(rows.loc[rows["status"] == Status.OK, "latency_ms"])
    for target, own in rows.groupby("target", sort=False):
        good = own[own["status"] == Status.OK]
        failed = len(own) - len(good)
        cells = ["-"] * 4
        if len(good):
            latency = good["latency_ms"]
            error = (100 * good["stderr_ms"] / latency).median()
            cells = [
                *(unit.text(value) for value in (latency.min(), latency.median(), latency.max())),
                f"{error:.1f} %",
            ]
        table.add_row(escape(str(target)), str(len(good)), f"[red]{failed}[/red]" if failed else "0", *cells)
    return table


def show_spaces(spaces: Sequence[SearchSpace]) -> None:
    """Print the search spaces."""
    screen = console()
    for space in spaces:
        size = f"{space.size:,}" if space.size < 1e6 else f"{space.size:.2g}"
        screen.print(f"[bold]{escape(space.name)}[/bold]  {escape(space.title)}")
        use = "" if space.buildable else ", for predictions only"
        screen.print(f"  {size} architectures{use}; encodings: {', '.join(space.encodings)}", style="dim")
        screen.print(f"  e.g. {space.references()[0].text}", style="dim", markup=False, highlight=False)


def show_sources(store: StorePath, listed: pd.DataFrame) -> None:
    """Print a line per device and space, and notes about imported labels."""
    screen = console()
    if listed.empty:
        screen.print(f"{escape(str(store))} knows of no device yet: latlab import, latlab measure")
        return
    for space, group in listed.fillna({"precision": "?"}).groupby("space", sort=False):
        table = Table(
            box=None, padding=(0, 2, 0, 0), header_style="dim", title=escape(str(space)), title_justify="left"
        )
        names = ("name", "precision", "architectures", "kind", "origin")
        for name in names:
            table.add_column(name, justify="right" if name == "architectures" else "left", overflow="fold")
        for row in group.to_dict("records"):
            row["precision"] = row["precision"] or "?"
            table.add_row(
                *(escape(str(row[name])) for name in ("name", "precision", "architectures", "kind", "origin"))
            )
        screen.print(table)
    for row in listed[listed["kind"] == "imported"].to_dict("records"):
        if row["notes"]:
            screen.print(f"{escape(row['name'])} of {escape(row['space'])}: {escape(row['notes'])}", style="dim")
    cited = sorted({one for one in listed["citation"].dropna() if one})
    if cited:
        screen.print(f"Published data: {escape('; '.join(cited))}. Cite it, and mind its licences.", style="dim")


def show_store(store: StorePath, campaigns: pd.DataFrame, failures: pd.DataFrame) -> None:
    """Print a line per campaign and session, and the failures."""
    if campaigns.empty:
        console().print(f"{escape(str(store))} is empty: nothing has been measured yet")
        return
    screen = console()
    for target, group in campaigns.groupby("target", sort=False):
        title = escape(str(target)) + (" [yellow](simulated)[/yellow]" if group["simulated"].any() else "")
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
        names = ["space", "selection", "policy", "seed", "session", "ok", "failed", "running", "last"]
        if screen.width < WIDE:
            names = ["space", "selection", "session", "ok", "failed"] + ["running"] * bool(group["running"].any())
        for name in names:
            table.add_column(name, justify="right" if name in ("ok", "failed", "running", "session") else "left")
        shown = group.assign(last=group["last"].fillna("").astype(str).str[:16].str.replace("T", " "))
        for cells in shown[names].itertuples(index=False):
            table.add_row(*(escape(str(cell)) for cell in cells))
        screen.print(table)
        for row in group.to_dict("records"):
            if row.get("provisional"):
                verb = "is" if row["provisional"] == 1 else "are"
                what = f"{count(row['provisional'], 'label')} of session {row['session']} {verb} provisional "
                what += "(passes missing, or the "
                what += "drift not removed yet); to finish: "
                what += how_to_finish({str(key): value for key, value in row.items()})
                screen.print(f"  {escape(what)}", style="yellow", highlight=False, soft_wrap=True)
            if row.get("networks"):
                what = "a comparison of" if row["selection"] == Selection.COMPARE else "a sustained run of"
                listed = ", ".join(row["networks"])
                screen.print(f"  {what} {escape(listed)} (session {row['session']})", style="dim", highlight=False)
    if len(failures):
        show_table(failures[["target", "arch", "status", "error"]], "Failures")
