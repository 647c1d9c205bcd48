"""The commands `latlab dashboard` and `latlab metrics`: what others measure, shown in a browser and to Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latlab.harness.cli.command import App
from latlab.harness.cli.options import STORE, JsonOption, StoreArgument, StoreOption, json_option, one_store, print_json
from latlab.harness.errors import BadInputError

app = App()

PORT = 8050
INSTALL = "Install them: pip install 'latlab[dashboard]'"


@app.command()
def dashboard(
    named: StoreArgument = None,
    store: StoreOption = STORE,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen at. Beyond this machine it takes a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 for any free one.")] = PORT,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            help="A file with the token that lets somebody in, or set LATLAB_DASHBOARD_TOKEN.",
            show_default=False,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A further name of this server. May be repeated."),
    ] = None,
    as_json: Annotated[bool, json_option("the address")] = False,
) -> None:
    """Serve a live page about a store that others write, until Ctrl+C. It reads the store only.

    [dim]Example:[/dim] latlab dashboard --store latlab.db

    [dim]For others:[/dim] latlab dashboard --host 0.0.0.0 --token-file token
    """
    from latlab.harness.dashboard.access import Access, read_token

    store = one_store(named, store)
    access = Access(host, read_token(token_file), tuple(allow_host or ()))
    try:
        from latlab.harness.dashboard import server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "anyio", "h11"):
            raise
        raise BadInputError(f"the page needs packages that are not here ({error.name})", INSTALL) from error
    from latlab.harness.dashboard.hub import Hub

    hub = Hub(store)
    with server.open_socket(host, port) as listening:
        url = server.url_of(listening, host)
        if as_json:
            print_json({"url": url, "store": str(store)})
        else:
            print(f"{store} is shown at {url} (Ctrl+C ends it)", flush=True)
        server.serve(hub, access, listening)


@app.command()
def metrics(named: StoreArgument = None, store: StoreOption = STORE, as_json: JsonOption = False) -> None:
    """Print the state of a store's devices and campaigns as Prometheus reads it.

    [dim]Example:[/dim] latlab metrics --store latlab.db

    The dashboard serves the same at /metrics.
    """
    import time

    from latlab.harness.dashboard.metrics import metrics_of, metrics_text
    from latlab.harness.dashboard.watch import StoreWatch

    watch, now = StoreWatch(one_store(named, store)), time.time()
    if as_json:
        for one in metrics_of(watch, now):
            for labels, value in one.samples:
                print_json({"name": one.name, "labels": labels, "value": value})
    else:
        print(metrics_text(watch, now), end="")
