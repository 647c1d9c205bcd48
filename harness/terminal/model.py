"""Draws what a model file says about itself, and how long it is predicted to take."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from latlab.harness.active_learning.model_prediction import ModelPrediction
from latlab.harness.models.description import TensorInfo, shape_text
from latlab.harness.models.inspection import Inspection
from latlab.harness.store.vocabulary import USER_MODEL_SPACE
from latlab.harness.terminal.console import console, warn
from latlab.harness.terminal.metric_text import text_of, value_name
from latlab.harness.text import millions, printable

__all__ = ["show_model", "show_model_prediction"]

MOST_TENSORS = 20
"""Most inputs or outputs that are listed."""
MOST_OPERATORS = 16
"""Most kinds of operators that are listed."""
LEAST_SHARE = 0.005
"""Least share of the latency of a kind of kernels that is listed."""


def show_model(found: Inspection) -> None:
    """Print what a model is: first what it takes and gives, then what it consists of."""
    screen = console()
    model = found.description
    title = f"[bold]{escape(printable(str(model.path)))}[/bold]  {escape(_format(found))}"
    screen.print(title, soft_wrap=True, highlight=False)
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(found):
        facts.add_row(name, escape(printable(value)))
    screen.print(facts)
    for title, tensors in (("Inputs", model.inputs), ("Outputs", model.outputs)):
        if tensors:
            screen.print(_tensors(title, tensors, found))
    if found.open:
        screen.print(f"[yellow]{escape(printable(found.open))}[/yellow]", soft_wrap=True, highlight=False)
    for note in (*model.notes, *(found.inputs.remarks if found.inputs else ())):
        screen.print(escape(printable(note)), style="dim", soft_wrap=True, highlight=False)


def _format(found: Inspection) -> str:
    names = {"onnx": "ONNX", "tflite": "TFLite", "torchscript": "TorchScript", "pt2": "torch.export program"}
    names |= {"pte": "ExecuTorch program", "module": "Python factory"}
    return names.get(found.description.format, found.description.format)


def _facts(found: Inspection) -> list[tuple[str, str]]:
    model = found.description
    facts = [("version", model.version), ("size", _bytes(model.size_bytes))]
    if model.sidecars:
        facts.append(("weights in", ", ".join(f"{one.path.name} ({_bytes(one.size_bytes)})" for one in model.sidecars)))
    facts.append(("precision", model.precision_detail))
    if model.parameters is not None:
        facts.append(("parameters", millions(model.parameters)))
    facts.append(("MACs", "unknown" if model.macs is None else millions(model.macs)))
    kinds = sorted(model.operators.items(), key=lambda item: -item[1])
    if kinds:
        words = [f"{count} {kind}" for kind, count in kinds[:MOST_OPERATORS]]
        more = f", and {len(kinds) - MOST_OPERATORS} more kinds" if len(kinds) > MOST_OPERATORS else ""
        facts.append(("operators", f"{sum(model.operators.values())}: {', '.join(words)}{more}"))
    facts.append(("runs in", ", ".join(found.runtimes) or "no runtime of this latlab"))
    facts += [("delegates" if number == 0 else "", text) for number, text in enumerate(found.delegates)]
    return facts


def _tensors(title: str, tensors: Sequence[TensorInfo], found: Inspection) -> Table:
    settled = {one.name: one for one in found.inputs.inputs} if found.inputs and title == "Inputs" else {}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in (title, "type", "shape", *(["measured as"] if settled else [])):
        table.add_column(name, overflow="fold")
    for one in tensors[:MOST_TENSORS]:
        kind = one.dtype or ("unknown" if one.kind == "tensor" else one.kind)
        row = [one.name, f"{kind} (optional)" if one.optional else kind, one.shape_text]
        if settled:
            asked = settled.get(one.name)
            row.append("left out" if asked is None else shape_text(asked.shape))
        table.add_row(*(escape(printable(cell)) for cell in row))
    if len(tensors) > MOST_TENSORS:
        table.add_row(f"... and {len(tensors) - MOST_TENSORS} more; --json lists all")
    return table


def _bytes(size: int) -> str:
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:.3g} {unit}"
    return f"{size} bytes"


def show_model_prediction(found: ModelPrediction) -> None:
    """Print a predicted latency, which kinds of kernels take it, and what it was learnt from."""
    screen = console()
    simulated = " (simulated)" if found.simulated else ""
    screen.print(f"Predicted on {found.target}{simulated}", style="italic", highlight=False, markup=False)
    screen.print(printable(found.model), markup=False, highlight=False, soft_wrap=True)
    value, low, high = (text_of(one, found.metric) for one in (found.latency_ms, found.lower_ms, found.upper_ms))
    screen.print(f"  {value}, 90 % from {low} to {high}; {millions(found.macs)} MACs", highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
    table.add_column("kernels")
    for name in ("share", value_name(found.metric)):
        table.add_column(name, justify="right")
    for kind, share in found.shares.items():
        if share >= LEAST_SHARE:
            table.add_row(escape(kind), f"{share:.0%}", text_of(share * found.latency_ms, found.metric))
    screen.print(table)
    counts = ", ".join(
        f"{count} of your own models" if space == USER_MODEL_SPACE else f"{count} of {escape(space)}"
        for space, count in found.labels.items()
    )
    screen.print(f"learnt from measurements: {counts}", style="dim", highlight=False)
    for remark in found.remarks:
        warn(remark)
