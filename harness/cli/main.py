"""The command `latlab`. Commands import what they need when they run, so that `--help` is quick."""

from __future__ import annotations

import atexit
import errno
import gc
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, NoReturn

import typer

from latlab.agents.protocol.errors import DISK_FULL
from latlab.harness.cli import bench as cli_bench
from latlab.harness.cli import compare as cli_compare
from latlab.harness.cli import dashboard as cli_dashboard
from latlab.harness.cli import devices as cli_devices
from latlab.harness.cli import (
    encoding,
    exporting_models,
    help_pages,
    inspecting,
    measuring,
    predicting,
    pretraining,
    results,
    searching,
    simulating,
)
from latlab.harness.cli import importing as cli_import
from latlab.harness.cli import profile as cli_profile
from latlab.harness.cli import quality as cli_quality
from latlab.harness.cli import store as cli_store
from latlab.harness.cli import sustain as cli_sustain
from latlab.harness.cli.command import App
from latlab.harness.cli.interruption import ending_orderly
from latlab.harness.cli.options import StoreOption, complain, store_before
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.store.place import without_passwords

__all__ = ["main"]

app = App(
    name="latlab",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for commands in (predicting, measuring, searching, results):
    app.add_typer(commands.app)
app.add_typer(cli_devices.app)
app.add_typer(inspecting.app)
app.add_typer(cli_bench.app, name="bench")
app.add_typer(simulating.app)
app.add_typer(pretraining.app)
app.add_typer(encoding.app)
app.add_typer(exporting_models.app)
app.add_typer(cli_import.app)
app.add_typer(cli_sustain.app)
app.add_typer(cli_profile.app)
app.add_typer(cli_compare.app)
app.add_typer(cli_quality.app)
app.add_typer(cli_dashboard.app)
app.add_typer(cli_import.sources, name="sources")
app.add_typer(cli_store.app, name="store")
app.add_typer(help_pages.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from latlab import __version__

        print(f"latlab {__version__}")
        raise typer.Exit


@app.callback(no_args_is_help=True)
def latlab(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version, and exit.", is_eager=True, callback=_print_version),
    ] = False,
    store: StoreOption = None,
) -> None:
    """Measure the latency of neural networks on your own devices, and predict the ones you have not measured.

    Begin with: [bold]latlab onboard local --space nasbench201 --budget 20[/bold]
    """
    store_before(context, store)


KEEP_WHAT_THEY_MEASURE = ("measure", "embed", "onboard", "search", "sustain", "compare")
"""Commands that lose nothing when they are interrupted."""
CONTINUE = {
    "export-models": "Finished networks are in the folder; the same command continues.",
    "encode": "Finished proxies are cached; the same command continues.",
    "pretrain": "Nothing is half written; the same command continues.",
}
"""What other commands that may last keep of their work."""
ONLY_READ = ("dashboard", "devices", "doctor", "help", "inspect", "metrics", "show", "spaces")
"""Commands that have nothing to lose."""
COLLECT_AFTER = (20_000, 50, 100)
"""Thresholds of Python's collector of cyclic garbage: imports alone leave a million objects, and with Python's own
thresholds, looking at them again and again is a sixth of the time that a command takes to start."""
INTERRUPTED = 130
"""typer's exit code for a `KeyboardInterrupt`, whichever signal raised it."""


def main() -> NoReturn:
    """Run the command line and exit.

    The code is 0 for success, 1 for a failure, 2 for bad input, 3 if some of several targets failed and the others
    have their results (`cli.failures`), and 128 + N after signal N.

    Errors are plain sentences.
    """
    gc.set_threshold(*COLLECT_AFTER)
    atexit.register(gc.freeze)  # a last collection when Python ends would take as long as a fifth of all imports
    as_json = "--json" in sys.argv
    if getattr(sys.stdout, "errors", "") == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack characters such as ±
    warnings.showwarning = partial(_show_warning, warnings.showwarning)
    with ending_orderly() as interruption:
        try:
            code = _run(as_json)
        except KeyboardInterrupt:  # before or after the command itself
            code = INTERRUPTED
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                complain(f"the name {error.filename!s:.40}... is too long for a file", "Shorten it.", as_json)
                code = BadInputError.exit_code
            elif interruption.signal is None:
                raise
            else:
                code = INTERRUPTED  # the display could not be ended, because its terminal is gone
        except UnicodeEncodeError:
            if not any("\ud800" <= letter <= "\udfff" for word in sys.argv for letter in word):  # no surrogates
                raise
            complain("an argument holds bytes that are no UTF-8 text", "Check the encoding of this terminal.", as_json)
            code = BadInputError.exit_code
        interruption.arrived()
        if code == INTERRUPTED and interruption.signal is None:
            complain(
                "interrupted by a KeyboardInterrupt that no signal has caused, such as a factory's own", None, as_json
            )
        if interruption.signal is not None:
            if code == INTERRUPTED:
                _, words = _split_store(sys.argv[1:])
                with suppress(OSError):
                    complain(interruption.words, _what_is_saved("".join(words[:1])), as_json)
            code = interruption.exit_code
    sys.exit(code)


def _what_is_saved(command: str) -> str | None:
    """Return what an interrupted command leaves behind, in words; None if it writes nothing."""
    if command in KEEP_WHAT_THEY_MEASURE:
        return "Everything measured so far is in the store; the same command continues."
    if command in CONTINUE:
        return CONTINUE[command]
    if command == "setup":
        return "The device's environment is replaced as a whole: it is the earlier one, or the new one."
    if command in ONLY_READ:
        return None
    return "Nothing is half written: each file is as it was before, or complete."


def _show_warning(usual: Callable[..., None], message: Warning | str, *more: Any) -> None:
    """Print a warning about a store in latlab's own form, and any other one as Python does."""
    if type(message).__name__ == "StoreWarning":  # by name, because the store's module is slow to import
        complain(str(message), None, False)
    else:
        usual(message, *more)


def _run(as_json: bool) -> int:
    """Run the command and return its exit code."""
    code = 0
    try:
        code = app(_spread(sys.argv[1:]), standalone_mode=False) or 0
    except LatlabError as error:
        complain(error.message, error.hint, as_json)
        code = error.exit_code
        page = help_pages.page_of(_split_store(sys.argv[1:])[1])
        if page and code == BadInputError.exit_code:
            print(f"`latlab help {page}` has more.", file=sys.stderr)
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except OSError as error:
        if error.errno not in (*DISK_FULL, errno.EIO):
            raise
        complain(f"cannot write the output: {error.strerror}", None, False)
        code = 1
    except Exception as error:
        code = _usage_error(error)
    return code


def _spread(words: list[str]) -> list[str]:
    """Return `--arch A B C` as `--arch A --arch B --arch C`, the form that the parser takes.

    It changes only unambiguous commands: `measure` must have its DEVICE first. For `compare` it is `--targets T1 T2`.
    """
    before_verb, words = _split_store(words)
    option, start = "--arch", 1
    if words[:1] == ["compare"]:
        option = "--targets"
    elif words[:1] == ["measure"] and len(words) > 1 and not words[1].startswith("-"):
        start = 2
    elif words[:1] != ["predict"]:
        return before_verb + words
    spread, listing = words[:start], False
    for before, word in zip(words[start - 1 :], words[start:], strict=False):
        if word.startswith("-"):
            listing = word == option
        elif listing and before != option:
            spread.append(option)
        spread.append(word)
    return before_verb + spread


def _split_store(words: list[str]) -> tuple[list[str], list[str]]:
    """Return a `--store` that stands before the command's name, and the other words."""
    length = 2 if words[:1] == ["--store"] else 1 if words and words[0].startswith("--store=") else 0
    return words[:length], words[length:]


def _usage_error(error: Exception) -> int:
    """Print an error of typer about the arguments as typer does, and return its exit code; raise any other error."""
    show: Callable[[], None] | None = getattr(error, "show", None)
    exit_code = getattr(error, "exit_code", None)
    if show is None or exit_code is None:
        raise error
    if isinstance(getattr(error, "message", None), str):
        error.message = without_passwords(error.message)  # type: ignore[attr-defined]
    from typer import rich_utils

    rich_utils.rich_format_error(error)  # type: ignore[arg-type]
    return int(exit_code)
