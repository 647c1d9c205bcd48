"""The commands `latlab onboard`, `latlab predict` and `latlab report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latlab.harness.cli.command import App, output_option
from latlab.harness.cli.failures import end_with_failures
from latlab.harness.cli.groups import InputGroup, LabGroup, PredictorGroup, TargetGroup, existing, grouped
from latlab.harness.cli.notifying import NotifyOption, notifying
from latlab.harness.cli.options import (
    SAMPLERS_HELP,
    STORE,
    DevicesArgument,
    EncodingTableOption,
    JsonOption,
    MetricOption,
    NearOption,
    PolicyOption,
    SeedOption,
    SpaceOption,
    StoreOption,
    UntilOption,
    WrittenOption,
    amount_of,
    json_option,
    milliseconds_of,
    print_json,
    records,
)
from latlab.harness.cli.table_files import table_format, write_table
from latlab.harness.errors import BadInputError
from latlab.harness.store.place import StorePath
from latlab.harness.store.vocabulary import LATENCY

if TYPE_CHECKING:
    from latlab.harness.models.input_options import InputOptions

app = App()
DIGITS = 6
"""Significant digits of predictions in CSV, as in the table of an onboarding."""


@app.command()
@grouped
def onboard(
    devices: DevicesArgument,
    space: SpaceOption,
    *,
    budget: Annotated[
        int | None,
        typer.Option("--budget", min=1, help="The most networks to measure \\[default: 20; 100 with --until]."),
    ] = None,
    until: UntilOption = None,
    near: NearOption = None,
    how: TargetGroup,
    holdout: Annotated[
        int,
        typer.Option(
            "--holdout",
            min=0,
            help="Also measure this many random networks twice; the predictor never sees them.",
        ),
    ] = 0,
    policy: PolicyOption = "default",
    predictor: PredictorGroup,
    as_written: WrittenOption = False,
    acquisition: Annotated[
        str,
        typer.Option(
            "--acquisition",
            metavar="NAME",
            help=f"How to choose the networks: sequential, one after the other by what is known then; or all at once: "
            f"{SAMPLERS_HELP}.",
        ),
    ] = "sequential",
    encoding_table: EncodingTableOption = None,
    seed: SeedOption = 0,
    out: Annotated[Path | None, output_option("--out", help="Folder for the report, table and predictor.")] = None,
    notify: NotifyOption = None,
    place: LabGroup,
    as_json: Annotated[bool, json_option("each target")] = False,
) -> None:
    """Measure a few well-chosen networks, predict the whole space, and write a report.

    [dim]Example:[/dim] latlab onboard local --space nasbench201 --budget 20 --holdout 100

    [dim]Or until it is good enough:[/dim] latlab onboard local --space fbnet --until "spearman 0.97, 3 min"

    The same command continues where it stopped; a larger budget extends it.
    """
    from latlab.harness.terminal import results as terminal

    lab = place.open()
    with (
        terminal.watching(space, quiet=as_json) as view,
        notifying(notify, place.store, space, view.listener(quiet=as_json)) as listener,
    ):
        results = lab.onboard_fleet(
            devices,
            space=space,
            budget=budget,
            until=until,
            near_ms=None if near is None else milliseconds_of("--near", near),
            holdout=holdout,
            policy=policy,
            options=how.options(),
            seed=seed,
            predictor=predictor.options(),
            as_written=as_written,
            out=out,
            acquisition=acquisition,
            encoding_table=encoding_table,
            listener=listener,
        )
    for result in results:
        if as_json:
            print_json(result.to_json())
        else:
            terminal.show_onboarding(result)
    end_with_failures(results.failures, len(results), as_json=as_json)


@app.command()
@grouped
def predict(
    *,
    target: Annotated[
        str | None,
        typer.Option("--target", help="A target that `latlab show` lists; or a device's name, if it has only one."),
    ] = None,
    predictor_folder: Annotated[
        Path | None,
        typer.Option("--predictor-folder", help="Instead of a target: the folder of a saved predictor; no store."),
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", help="The search space; needed if the target has several.")
    ] = None,
    arch: Annotated[list[str] | None, typer.Option("--arch", help="An architecture's string; may be repeated.")] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Predict the whole space, or a large sample of a larger one.")
    ] = False,
    metric: MetricOption = LATENCY,
    under: Annotated[
        str | None,
        typer.Option("--under", help="Only networks that are predicted to be faster, such as 20ms, or to take less."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="Only so many, the fastest; strings of the same network count once."),
    ] = None,
    sort: Annotated[bool, typer.Option("--sort", help="The fastest first.")] = False,
    out: Annotated[Path | None, output_option("--out", help="Write a .parquet or .csv file instead.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Instead of networks of a space: any model file, or package.module:factory, whose code is run here.",
        ),
    ] = None,
    inputs: InputGroup,
    onnx: Annotated[
        Path | None,
        output_option("--onnx", ".onnx", help="Also write the fitted predictor as an ONNX file."),
    ] = None,
    predictor: PredictorGroup,
    seed: SeedOption = 0,
    store: StoreOption = STORE,
    as_json: Annotated[bool, json_option("each network")] = False,
) -> None:
    """Predict networks that were not measured, from the store's measurements of the target and of other devices.

    [dim]Example:[/dim] latlab predict --target local/onnxruntime/cpu/fp32/t1/b1 --all --under 20ms --top 10

    [dim]Any model:[/dim] latlab predict --target local/onnxruntime/cpu/fp32/t1/b1 --model net.onnx
    """
    if model is not None or inputs.are_given:
        _, options = inputs.of(None if model is None else [model])
        others: dict[str, object] = {
            "--arch": arch,
            "--all": all_,
            "--space": space,
            "--under": under,
            "--top": top,
            "--sort": sort,
        }
        others |= {"--out": out, "--onnx": onnx, "--predictor-folder": predictor_folder}
        given = [name for name, value in others.items() if value]
        alike = PredictorGroup(spaces_from=predictor.spaces_from)
        given += [] if predictor == alike else ["--predictor, --sources or --fact"]
        if given:
            raise BadInputError(f"{given[0]} is not for --model: it is predicted from all that the target has measured")
        if target is None:
            raise BadInputError("say for which target: --target TARGET")
        _predict_model(store, target, str(model), options, predictor.spaces_from, metric, as_json)
        return
    if (all_ and arch is not None) or not (all_ or arch or onnx):
        raise BadInputError("say what to predict: --arch STRING (repeatable), --all, or --model FILE")
    if (target is None) == (predictor_folder is None):
        raise BadInputError("say for which target: --target TARGET, or --predictor-folder FOLDER")
    limit = None if under is None else amount_of("--under", under, metric)
    format_ = None if out is None else table_format(out)
    from latlab.harness.active_learning.fitted_predictor import load_predictor
    from latlab.harness.active_learning.latency_table import fastest
    from latlab.harness.active_learning.prediction import predict as predictions
    from latlab.harness.architectures import parse_archs
    from latlab.harness.lab import Lab
    from latlab.harness.terminal import console
    from latlab.harness.terminal import results as terminal

    with terminal.working("learning and predicting", quiet=as_json):
        if predictor_folder is not None:
            if predictor != PredictorGroup() or metric != LATENCY:
                raise BadInputError("a saved predictor is fitted already: leave out options of how it is fitted")
            fitted = load_predictor(predictor_folder)
            if space not in (None, fitted.card.space):
                raise BadInputError(f"{predictor_folder} holds a predictor of {fitted.card.space}, not of {space}")
        else:
            existing(store)
            how = predictor.options()
            fitted = Lab(store).predictor(str(target), space=space, predictor=how, seed=seed, metric=metric)
        found = predictions(fitted, None if all_ else parse_archs(fitted.space, arch or []))
    if onnx is not None:
        fitted.to_onnx(onnx)
        if not (all_ or arch):
            print_json({"onnx": str(onnx)}) if as_json else print(f"Predictor: {onnx}")
            return
    value = fitted.card.metric
    table = found.table if limit is None else found.table[found.table[value] < limit]
    if top is not None:
        table = fastest(table, fitted.space, fitted.view, top, by=value)[0]
    elif sort:
        table = table.sort_values(value, kind="stable")
    where = fitted.card.target + (" (simulated)" if fitted.card.simulated else "")
    if not found.support:
        if found.other_spaces:
            measured = f"nothing was measured on {where} in {fitted.card.space}"
            console.warn(f"{measured}: this comes from other spaces, other devices and the prior")
        else:
            console.warn(f"nothing was measured on {where}: this comes from other devices and the prior only")
    for remark in found.remarks:
        console.warn(remark)
    if out is not None and format_ is not None:
        write_table(table, out, format_, DIGITS)
        if as_json:
            print_json({"file": str(out), "rows": len(table)})
        else:
            print(f"{len(table):,} rows written to {out}")
    elif as_json:
        for record in records(table):
            print_json(record)
    else:
        what = "" if value == LATENCY else f"{value} "
        terminal.show_predictions(table, f"Predicted {what}on {where}", value)
    if not as_json:
        terminal.show_prior(found.sources, found.scope, found.other_spaces)


def _predict_model(
    store: StorePath, target: str, model: str, options: InputOptions, spaces_from: str, metric: str, as_json: bool
) -> None:
    from latlab.harness.lab import Lab
    from latlab.harness.terminal.model import show_model_prediction
    from latlab.harness.terminal.results import working

    existing(store)
    with working("reading measured networks, learning and predicting", quiet=as_json):
        found = Lab(store).predict_model(target, model, inputs=options, spaces_from=spaces_from, metric=metric)
    if as_json:
        print_json(found.to_json())
        return
    show_model_prediction(found)


@app.command()
@grouped
def report(
    *,
    store: StoreOption = STORE,
    target: Annotated[
        str | None, typer.Option("--target", help="A target or a device; needed if the store has several.")
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", help="The search space; needed if the target has several.")
    ] = None,
    out: Annotated[Path, output_option("--out", ".html", help="The file to write.")] = Path("report.html"),
    predictor: PredictorGroup,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Write a report of a target's stored measurements: one self-contained HTML file.

    [dim]Example:[/dim] latlab report --target local/onnxruntime/cpu/fp32/t1/b1 --space nasbench201 --out report.html
    """
    from latlab.harness.lab import Lab
    from latlab.harness.terminal import results as terminal

    existing(store)
    options = predictor.options()
    with terminal.working("learning and drawing", quiet=as_json):
        path = Lab(store).report(target=target, space=space, out=out, predictor=options, seed=seed)
    if as_json:
        print_json({"report": str(path)})
    else:
        print(f"Report: {path}")
