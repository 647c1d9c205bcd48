"""The command `latlab compare`: which network is faster, how two targets differ, and a gate against regressions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latlab.harness.cli.command import App, output_option
from latlab.harness.cli.failures import ALL_FAILED, SOME_FAILED, end_with_failures
from latlab.harness.cli.groups import InputGroup, LabGroup, TargetGroup, grouped
from latlab.harness.cli.interruption import interruption
from latlab.harness.cli.options import (
    PolicyOption,
    SeedOption,
    WrittenOption,
    complain,
    json_option,
    named_store,
    percent,
    print_json,
)
from latlab.harness.errors import BadInputError
from latlab.harness.store.place import StorePath

if TYPE_CHECKING:
    from latlab.harness.compare.gate import GateCheck
    from latlab.harness.compare.result import ComparisonResult

__all__ = ["app"]

app = App()


@app.command()
@grouped
def compare(
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL... DEVICE...",
            help="Models (net.onnx, net.tflite, net.pt, package.module:factory) and the devices to compare them on, in "
            "any order; a factory's Python code is run here \\[default device: local]",
        ),
    ] = None,
    space: Annotated[str | None, typer.Option("--space", help="The search space of --arch, or of --count.")] = None,
    arch: Annotated[
        list[str] | None, typer.Option("--arch", help="An architecture to compare; given at least twice.")
    ] = None,
    inputs: InputGroup,
    ties: Annotated[
        str, typer.Option("--ties", metavar="PERCENT", help="A difference of no more than this is a tie.")
    ] = "1%",
    confidence: Annotated[
        float, typer.Option("--confidence", help="Probability that all verdicts of a device are right.")
    ] = 0.95,
    budget: Annotated[float, typer.Option("--budget", metavar="SECONDS", help="Most seconds on each device.")] = 30.0,
    fail_if_slower: Annotated[
        str | None,
        typer.Option(
            "--fail-if-slower",
            metavar="PERCENT",
            help="Exit with code 1 if a network is slower than the first one, or than --baseline, by more than this.",
        ),
    ] = None,
    baseline: Annotated[
        Any,
        typer.Option(
            "--baseline",
            metavar="STORE",
            parser=named_store,
            help="A store with labels of another day, to compare with those of now.",
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option("--targets", help="Compare two full targets, by the labels of --space with --count or --arch."),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="With --targets: this many random architectures.")
    ] = None,
    policy: PolicyOption = "default",
    how: TargetGroup,
    as_written: WrittenOption = False,
    seed: SeedOption = 0,
    out: Annotated[
        Path | None, output_option("--out", ".html", help="With --targets: also write this .html page.")
    ] = None,
    junit: Annotated[
        Path | None,
        output_option("--junit", ".xml", help="With --fail-if-slower: also write a JUnit file for CI."),
    ] = None,
    markdown: Annotated[Path | None, output_option("--markdown", help="Also write a summary in Markdown.")] = None,
    place: LabGroup,
    as_json: Annotated[bool, json_option("each target")] = False,
) -> None:
    """Find out which of several networks is faster, with error bars: their passes take turns on a device.

    [dim]Examples:[/dim] latlab compare a.onnx b.onnx local

    latlab compare old.onnx new.onnx --fail-if-slower 3%

    latlab compare new.onnx --baseline baseline.db --fail-if-slower 3%

    latlab compare --targets local/onnxruntime/cpu/fp32/t1/b1 local/tflite/cpu/fp32/t1/b1 --space fbnet --count 30
    """
    limit = percent("--fail-if-slower", fail_if_slower)
    tie = percent("--ties", ties)
    assert tie is not None
    _check_options(limit, baseline, targets, count, out, junit, policy)
    for file in (out, junit, markdown):  # before anything is measured
        if file is not None and not file.absolute().parent.is_dir():
            raise BadInputError(f"cannot write {file}: there is no folder {file.parent}")
    shared: dict[str, Any] = {"seed": seed, "as_written": as_written}
    if targets:
        if words or not space or how.are_given or markdown:
            raise BadInputError(
                "--targets compares two targets by their labels: it takes --space with --count or --arch, and neither "
                "models, devices, --runtime, --threads nor --markdown",
                "A full target such as local/onnxruntime/cpu/fp32/t4/b1 says how networks run.",
            )
        _between_targets(targets, space, count, arch, policy, shared, out, place, as_json)
        return
    from latlab.harness.compare.contestants import split_words

    lab = place.open()
    models, devices = split_words(words or (), lab.inventory)
    if bool(models) == bool(arch):
        raise BadInputError("say what to compare", "Two model files, or --space NAME with --arch twice.")
    if bool(arch) != bool(space):
        raise BadInputError("--arch and --space go together, without models")
    networks = arch or models
    shared |= {
        "space": space,
        "inputs": inputs.of(models[:1] or None)[1],
        "options": how.options(),
    }
    if baseline is not None:
        assert limit is not None
        from latlab.harness.terminal import results as terminal

        with terminal.watching("today's labels", quiet=as_json) as view:
            checks = lab.check_baseline(
                baseline,
                limit,
                devices or "local",
                networks=networks,
                policy=policy,
                confidence=confidence,
                listener=view.listener(quiet=as_json),
                **shared,
            )
        _end_gate(checks, junit, markdown, as_json)
        return
    _paired(lab, networks, devices or ["local"], shared, (tie, confidence, budget, limit), junit, markdown, as_json)


def _paired(
    lab: Any,
    networks: Sequence[str],
    devices: Sequence[str],
    shared: dict[str, Any],
    asked: tuple[float, float, float, float | None],
    junit: Path | None,
    markdown: Path | None,
    as_json: bool,
) -> None:
    from latlab.harness.compare.gate import paired_checks
    from latlab.harness.compare.result import Question
    from latlab.harness.report.compare.markdown import results_markdown, write_markdown
    from latlab.harness.terminal.compare import following, show_results

    question = Question(*asked)
    interrupted = False
    with following(quiet=as_json) as view:
        try:
            results = lab.compare(
                networks, devices, question=question, listener=view.listener(), follow=view.follow, **shared
            )
        except KeyboardInterrupt:
            if not any(run.blocks for run in view.runs):
                raise
            results, interrupted = [run.result() for run in view.runs], True
    if as_json:
        for one in results:
            print_json(one.to_json())
    else:
        show_results(results, lab.store.path)
    for one in results:
        if one.error:
            complain(f"{one.device}: {one.error}", None, False)
    if interrupted:
        print(f"latlab: {interruption.words}\nWhat was compared up to now is in the store.", file=sys.stderr)
        sys.exit(interruption.exit_code)
    if question.limit_percent is not None:
        _end_gate(paired_checks(results), junit, markdown, as_json)
    elif markdown is not None:
        write_markdown(results_markdown(results), markdown)
    failed = [one for one in results if _any_failed([one])]
    if failed:
        raise typer.Exit(SOME_FAILED if len(failed) < len(results) else ALL_FAILED)


def _any_failed(results: Sequence[ComparisonResult]) -> bool:
    return any(one.error or model.error for one in results for model in one.models)


def _end_gate(checks: Sequence[GateCheck], junit: Path | None, markdown: Path | None, as_json: bool) -> None:
    """Print the checks, write the files, and exit with code 1 if the gate stays closed."""
    from latlab.harness.compare.gate import GateOutcome, passes
    from latlab.harness.report.compare.junit import write_junit
    from latlab.harness.report.compare.markdown import checks_markdown, write_markdown
    from latlab.harness.terminal.compare import show_checks
    from latlab.harness.terminal.console import warn

    if as_json:
        print_json({"gate": "passed" if passes(checks) else "failed", "checks": [one.to_json() for one in checks]})
    else:
        show_checks(checks)
    for one in checks:
        if one.outcome is GateOutcome.UNDECIDED:
            warn(f"undecided, which passes: {one.model} on {one.target}")
    if junit is not None:
        write_junit(checks, junit)
    if markdown is not None:
        write_markdown(checks_markdown(checks), markdown)
    if not passes(checks):
        raise typer.Exit(1)


def _between_targets(
    targets: Sequence[str],
    space: str,
    count: int | None,
    arch: Sequence[str] | None,
    policy: str,
    shared: dict[str, Any],
    out: Path | None,
    place: LabGroup,
    as_json: bool,
) -> None:
    from latlab.harness.report.compare.page import write_page
    from latlab.harness.terminal import results as terminal
    from latlab.harness.terminal.compare import show_targets

    with terminal.watching(space, quiet=as_json) as view:
        found = place.open().compare_targets(
            targets,
            space=space,
            count=count,
            archs=arch,
            policy=policy,
            listener=view.listener(quiet=as_json),
            **shared,
        )
    if out is not None:
        write_page(found, out)
    if as_json:
        print_json(found.to_json())
    else:
        show_targets(found)
        if out is not None:
            print(f"Page: {out}")
    end_with_failures(found.failures, 2 - len(found.failures), as_json=as_json)


def _check_options(
    limit: float | None,
    baseline: StorePath | None,
    targets: Sequence[str] | None,
    count: int | None,
    out: Path | None,
    junit: Path | None,
    policy: str,
) -> None:
    """Raise `BadInputError` for options that mean nothing together."""
    if baseline is not None and limit is None:
        raise BadInputError("--baseline is compared with by --fail-if-slower", "Add --fail-if-slower 3%, for example.")
    if junit is not None and limit is None:
        raise BadInputError(
            "a JUnit file holds the checks of --fail-if-slower", "Add --fail-if-slower 3%, for example."
        )
    if targets and limit is not None:
        raise BadInputError("--targets compares devices, --fail-if-slower networks", "Leave one out.")
    if not targets and (count is not None or out is not None):
        raise BadInputError(f"{'--count' if count is not None else '--out'} is an option of --targets")
    if not targets and baseline is None and policy != "default":
        raise BadInputError("a paired comparison times networks in its own way: leave out --policy")
