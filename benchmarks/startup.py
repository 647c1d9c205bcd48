"""Figure 7: the time from a clone to a report, and until the command line answers.

    python benchmarks/startup.py

The script clones this repository into an empty folder, makes a fresh virtual environment there, installs, and runs the
README's first command. Downloads are timed separately (`pip download` first), because they depend on the network.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import RESULTS, save, show

ROOT = Path(__file__).parents[1]


def seconds(command: list[str], cwd: Path, **environment: str) -> float:
    start = time.monotonic()
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environment})
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--skip-install", action="store_true", help="only the start of the command line")
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.json")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    if not arguments.skip_install:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            figures["clone_s"] = seconds(["git", "clone", "--quiet", str(ROOT), "latlab"], folder)
            clone, python = folder / "latlab", str(folder / "latlab" / ".venv" / "bin" / "python")
            figures["venv_s"] = seconds([sys.executable, "-m", "venv", ".venv"], clone)
            wheels = str(folder / "wheels")
            figures["download_s"] = seconds(
                [python, "-m", "pip", "download", "-q", "-d", wheels, ".", "setuptools"], clone
            )
            install = [python, "-m", "pip", "install", "-q", "--no-index", "--find-links", wheels, "-e", "."]
            figures["install_s"] = seconds(install, clone)
            onboard = [str(clone / ".venv" / "bin" / "latlab"), "onboard", "local", "--space", "nasbench201"]
            figures["onboard_s"] = seconds([*onboard, "--budget", "20"], clone, LATLAB_CACHE=str(folder / "cache"))
        parts = ("clone_s", "venv_s", "install_s", "onboard_s")
        figures["clone_to_report_without_download_s"] = sum(figures[part] for part in parts)
    for name, code in (("import_cli_s", "import latlab.harness.cli.main"), ("python_alone_s", "pass")):
        times = [seconds([sys.executable, "-c", code], ROOT) for _ in range(15)]
        figures[name] = statistics.median(times)
    help_ = [str(Path(sys.executable).with_name("latlab")), "--help"]
    figures["help_s"] = statistics.median(seconds(help_, ROOT) for _ in range(15))
    show("From a clone to a report", [{"step": name, "seconds": value} for name, value in figures.items()])
    save(arguments.out, figures)


if __name__ == "__main__":
    main()
