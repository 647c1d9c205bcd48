"""The commands about devices, which prepare a measurement: init, devices, doctor, setup."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from latlab.harness.cli.command import App, output_option
from latlab.harness.cli.options import STORE, InventoryOption, JsonOption, StoreOption, json_option, print_json
from latlab.harness.targets import RUNTIMES

__all__ = ["app"]

app = App()
PANEL = "Your devices"

PACKAGES = [name for name, runtime in RUNTIMES.items() if runtime.in_worker]
if TYPE_CHECKING:
    Package: TypeAlias = str
else:  # the choices that typer offers are those of the one table
    Package = StrEnum("Package", {name: name for name in PACKAGES})


class Flavour(StrEnum):
    """Accelerators that packages of runtimes are built for."""

    cpu = "cpu"
    cuda = "cuda"


@app.command(rich_help_panel=PANEL)
def init(
    out: Annotated[Path, output_option("--out", ".yaml", ".yml", help="The file to write.")] = Path("inventory.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    schema: Annotated[
        bool,
        typer.Option("--schema", help="Only renew the file's JSON Schema, which editors use."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a first inventory.yaml: this machine, a simulated device, and what is found nearby, commented out."""
    from latlab.harness.inventory import template as starter

    if schema:
        starter.write_schema(out)
    else:
        starter.write(out, force=force)
    path = starter.schema_path(out)
    if as_json:
        print_json({"inventory": str(out), "schema": str(path)})
    elif schema:
        print(f"{path} written")
    else:
        print(f"{out} written, and {path} for your editor. Add your devices, then: latlab doctor all")


@app.command(rich_help_panel=PANEL)
def devices(
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="Connect to each device.")] = True,
    store: StoreOption = STORE,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List your devices: whether they answer now, and what was measured on them."""
    from latlab.harness.devices.status import overview
    from latlab.harness.inventory.inventory import load_inventory
    from latlab.harness.terminal import results as terminal
    from latlab.harness.terminal.devices import show_overview

    loaded = load_inventory(inventory)
    with terminal.working("asking the devices", quiet=as_json or not probe):
        found = overview(loaded, store, probe=probe)
    if as_json:
        print_json([one.to_json() for one in found])
    else:
        show_overview(found, loaded.path, store)


@app.command(rich_help_panel=PANEL)
def doctor(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="DEVICE", help="Devices of the inventory, or `all` \\[default: local]"),
    ] = None,
    inventory: InventoryOption = None,
    as_json: Annotated[bool, json_option("each device")] = False,
) -> None:
    """Check devices: can they be reached, do their runtimes really run a network, and what would disturb timing?

    [dim]Example:[/dim] latlab doctor all
    """
    from latlab.harness.devices.doctor import examine, examine_controller
    from latlab.harness.inventory.inventory import load_inventory
    from latlab.harness.terminal.devices import examining, show_controller

    loaded = load_inventory(inventory)
    chosen = list(dict.fromkeys(name for name, _ in loaded.select(names or ["local"])))
    controller = examine_controller()
    failed = any(finding.state == "failed" for finding in controller)
    if as_json:
        for examination in examine(chosen, loaded):
            print_json({**examination.to_json(), "controller": [finding.to_json() for finding in controller]})
            failed |= examination.state == "failed"
    else:
        show_controller(controller)
        with examining(chosen) as show:
            for examination in examine(chosen, loaded):
                show(examination)
                failed |= examination.state == "failed"
    if failed:
        raise typer.Exit(1)


@app.command(rich_help_panel=PANEL)
def setup(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="A device of the inventory.")],
    runtime: Annotated[
        list[Package] | None,
        typer.Option(
            "--runtime",
            metavar="NAME",
            help=f"A runtime to install: {', '.join(PACKAGES)}; may be repeated "
            "\\[default: the targets' runtimes, else onnxruntime and tflite]",
        ),
    ] = None,
    accelerator: Annotated[
        Flavour | None,
        typer.Option(
            "--accelerator",
            help="`cuda` for packages that use an NVIDIA GPU \\[default: cpu]",
        ),
    ] = None,
    find_links: Annotated[
        list[str] | None,
        typer.Option("--find-links", metavar="FOLDER", help="A further folder with wheels; may be repeated."),
    ] = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Install inference runtimes on a device, in a folder that only latlab uses, and run a small network on each.

    [dim]Example:[/dim] latlab setup pi4 --runtime onnxruntime --runtime tflite

    This machine fetches the wheels: the device needs Python, but neither pip nor the internet.
    """
    from latlab.harness.inventory.inventory import load_inventory
    from latlab.harness.provisioning.setup import set_up
    from latlab.harness.terminal.devices import setting_up, show_set_up

    loaded = load_inventory(inventory)
    with setting_up(device, quiet=as_json) as say:
        done = set_up(device, loaded, runtime, accelerator=accelerator, find_links=find_links or (), say=say)
    if as_json:
        print_json(done.to_json())
    else:
        show_set_up(done)
    if not done.ok:
        raise typer.Exit(1)
