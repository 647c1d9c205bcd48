"""How soon a device is free after its controller ends, whatever the worker is doing.

    python benchmarks/kills.py [--only local ssh adb benchmark_model]

The script starts latlab commands and kills them with each signal while the worker is in native code that lasts for
hours: in a first inference, or in the import of a runtime that holds Python's lock. In the rows `stopped in VERB`, a
program in the place of a command has sent that request to a worker that SIGSTOP keeps from answering. The seconds run
from the signal until the lock of the device is free; for `benchmark_model`, until the program on the phone has ended,
too. `ssh` leads to an sshd on the loopback interface; `adb` and `benchmark_model` to Debian's build of adbd in
namespaces, which takes root. It uses the helpers of the tests, so that it needs a clone of the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, save, show
from loopback import loopback_ssh

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from killed_controllers import BUSY_CPU_S, SLOW_MODELS, Controller, is_free, stuck_package
from waiting import wait_until

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
COMMANDS: dict[str, list[str]] = {
    "measure": ["measure", "device", "--model", "slow.onnx", "--policy", "help", "--runtime", "onnxruntime"],
    "sustain": ["sustain", "device", "--model", "slow.onnx", "--minutes", "1", "--runtime", "onnxruntime"],
    "onboard": ["onboard", "device", "--space", "nasbench201", "--budget", "3", "--runtime", "onnxruntime"],
    "embed": ["embed", "device", "--space", "nasbench201", "--runtime", "onnxruntime"],
    "profile": ["profile", "slow.onnx", "device", "--runtime", "onnxruntime"],
    "compare": ["compare", "slow.onnx", "slow.onnx", "device", "--runtime", "onnxruntime"],
    "doctor": ["doctor", "device"],
    "setup": ["setup", "device", "--runtime", "onnxruntime"],
}
REQUESTS = {
    "hello": {"protocol": 1},
    "telemetry": {},
    "put": {"sha256": "0" * 64, "size": 1, "suffix": ".onnx"},
    "install": {"environment": "0" * 16, "wheels": []},
    "idle": None,
}
"""Requests to a worker that is stopped, and no request."""
CLIENT = """
import json, sys
from pathlib import Path
from latlab.harness.inventory.inventory import load_inventory
from latlab.harness.transports import open_transport
sys.excepthook = lambda *_: None  # what a signal interrupts is no news
transport = open_transport(load_inventory(Path("inventory.yaml")).device("device"), "device", "onnxruntime")
transport.start()
print(transport.request("hello", 60, protocol=1)["pid"], flush=True)
sys.stdin.readline()
verb, fields = json.loads(sys.argv[1])
if fields is None:
    sys.stdin.readline()
else:
    transport.request(verb, 3600, **fields)
"""
PATIENCE_S = 120.0


@dataclass
class Bench:
    """A device, and how it is seen from behind."""

    entry: dict[str, Any]
    lock: Path
    stuck: dict[str, Any]
    """What the entry of a device has instead whose import of onnxruntime never ends."""
    importing: Path
    """The file that says that this import has begun."""
    is_here: bool
    """Whether its processes are those of this machine, by number."""
    stop: Callable[[int], None]
    """Stops a process of the device."""
    installs: bool = True


def _stop_here(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


@contextmanager
def local(folder: Path) -> Iterator[Bench]:
    (folder / "stuck").mkdir()
    python, importing = stuck_package(folder / "stuck", sys.executable)
    entry = {"transport": "local", "work": folder / "work"}
    yield Bench(entry, folder / "work" / "lock", {"python": python}, importing, True, _stop_here)


@contextmanager
def ssh(folder: Path) -> Iterator[Bench]:
    (folder / "stuck").mkdir()
    python, importing = stuck_package(folder / "stuck", sys.executable)
    with loopback_ssh(folder) as device:
        entry = device.model_dump(mode="json", exclude_defaults=True) | {"transport": "ssh"}
        yield Bench(entry, folder / "work" / "lock", {"python": python}, importing, True, _stop_here)


@contextmanager
def _phone(folder: Path) -> Iterator[Any]:
    from peers.network import Network
    from peers.phone import Phone

    (folder / "phone").mkdir()
    network = Network()
    try:
        phone = Phone(network, "phone", folder / "phone", disk_mb=1024)
        try:
            yield phone
        finally:
            phone.close()
    finally:
        network.close()


@contextmanager
def adb(folder: Path) -> Iterator[Bench]:
    from adb_shell.auth.keygen import keygen

    keygen(str(folder / "adbkey"))
    with _phone(folder) as phone:
        home = phone.path(phone.home)
        (home / "stuck").mkdir()
        (home / "stuck").chmod(0o777)
        python, importing = stuck_package(home / "stuck", phone.python, f"{phone.home}/stuck")
        entry = {"transport": "adb", "host": phone.address, "port": phone.port, "key": folder / "adbkey"}
        entry |= {"python": phone.python, "work": f"{phone.home}/work"}
        lock = home / "work" / "lock"
        yield Bench(entry, lock, {"python": python}, importing, False, lambda pid: phone.signal(pid, signal.SIGSTOP))


DEVICES = {"local": local, "ssh": ssh, "adb": adb}


def stuck_wheel(folder: Path) -> dict[str, str]:
    """Make a wheel of onnxruntime whose import never ends; return the variables with which pip finds nothing else."""
    import base64
    import hashlib
    import zipfile

    folder.mkdir()
    info = "onnxruntime-99.0.dist-info"
    body = f"import ctypes\nopen({str(folder / 'importing')!r}, 'w').close()\nctypes.PyDLL(None).sleep(3600)\n"
    files = {
        "onnxruntime/__init__.py": body,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: onnxruntime\nVersion: 99.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        for name, text in files.items()
    ]
    with zipfile.ZipFile(folder / "onnxruntime-99.0-py3-none-any.whl", "w") as wheel:
        for name, text in [*files.items(), (f"{info}/RECORD", "\n".join(record) + "\n")]:
            wheel.writestr(name, text)
    return {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}


def command(bench: Bench, folder: Path, name: str, runtime: str, number: signal.Signals) -> dict[str, Any]:
    """Kill a command while the device runs `runtime`, or imports it if it is "an import"."""
    words, entry, environment = COMMANDS[name], dict(bench.entry), {}
    importing = bench.importing
    if runtime == "an import" and name == "setup":
        environment = stuck_wheel(folder / "wheels")
        importing = folder / "wheels" / "importing"
    elif runtime == "an import":
        entry |= bench.stuck
        SLOW_MODELS["onnxruntime"](folder)
    else:
        model = SLOW_MODELS[runtime](folder)
        words = ["measure", "device", "--model", str(model), "--policy", "help", "--runtime", runtime]
        words += ["--input", "256x256"] if runtime == "torchscript" else []
    importing.unlink(missing_ok=True)
    controller = Controller(words, folder, entry, bench.lock, environment)
    try:
        if runtime == "an import":
            controller.wait_for_file(importing)
        else:
            controller.wait_for_work(BUSY_CPU_S[runtime])
        killed = controller.kill(number, PATIENCE_S)
    finally:
        controller.close()
    return {"free_s": killed.free_s, "exit_code": killed.exit_code}


def request(bench: Bench, folder: Path, verb: str, number: signal.Signals) -> dict[str, Any]:
    """Kill a client while its worker, which is stopped, does not answer a request."""
    (folder / "inventory.yaml").write_text(json.dumps({"devices": {"device": bench.entry}}, default=str))
    words = [sys.executable, "-c", CLIENT, json.dumps([verb, REQUESTS[verb]])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, cwd=folder, text=True, start_new_session=True, **pipes) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        bench.stop(int(client.stdout.readline()))
        client.stdin.write("go\n")
        client.stdin.flush()
        time.sleep(0.5)
        assert not is_free(bench.lock)
        began = time.monotonic()
        client.send_signal(number)
        wait_until(lambda: is_free(bench.lock), f"the device is not free after {number.name}", PATIENCE_S)
        free_s = time.monotonic() - began
        return {"free_s": free_s, "exit_code": client.wait(PATIENCE_S)}


def benchmark_model(folder: Path) -> Iterator[dict[str, Any]]:
    """Kill `latlab measure` while the phone's program runs, also one to whom SIGHUP does nothing (old phones)."""
    from adb_shell.auth.keygen import keygen

    keygen(str(folder / "adbkey"))
    with _phone(folder) as phone:
        busy, deaf = "latlab-keeper|benchmark_model-", "trap '' HUP"
        for ignores in (False, True):
            program, started = folder / "benchmark_model", phone.path(phone.home) / "started"
            program.write_text(
                f"#!/system/bin/sh\n[ $1 = --help ] && exit 1\n{deaf if ignores else ''}\n"
                f": >{phone.home}/started\nwhile :; do sleep 1; done\n"
            )
            program.chmod(0o755)
            entry = {"transport": "adb", "host": phone.address, "port": phone.port, "key": folder / "adbkey"}
            entry |= {"benchmark_model": program, "work": f"{phone.home}/work"}
            model = SLOW_MODELS["tflite"](folder)
            words = ["measure", "device", "--model", str(model), "--policy", "help", "--runtime", "benchmark_model"]
            for number in SIGNALS:
                started.unlink(missing_ok=True)
                lock = phone.path(phone.home) / "work" / "lock"
                controller = Controller(words, folder, entry, lock)
                try:
                    controller.wait_for_file(started)
                    killed = controller.kill(number, PATIENCE_S, lambda: not phone.processes(busy))
                finally:
                    controller.close()
                yield {
                    "transport": "benchmark_model",
                    "command": "measure",
                    "worker is in": "the program, which ignores SIGHUP" if ignores else "the program",
                    "signal": number.name,
                    "free_s": killed.free_s,
                    "exit_code": killed.exit_code,
                }


def cases(transport: str) -> Iterator[tuple[str, str]]:
    """Yield the command, or "", and what the worker is in."""
    if transport != "adb":  # the phone of the tests has no torch, and its processes have other numbers here
        yield from (("measure", runtime) for runtime in SLOW_MODELS)
    yield from ((name, "an import") for name in COMMANDS if (name, transport) != ("setup", "adb"))
    yield from (("", verb) for verb in REQUESTS)


def main() -> None:
    # Commands would inherit that these are ignored, under nohup and in the background of a shell.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    choices = [*DEVICES, "benchmark_model"]
    parser.add_argument("--only", nargs="+", choices=choices, default=choices, help="the transports to try")
    parser.add_argument("--out", type=Path, default=RESULTS / "kills.json")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def note(row: dict[str, Any]) -> None:
        rows.append(row)
        print(*row.values(), flush=True)

    for transport in arguments.only:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            if transport == "benchmark_model":
                for row in benchmark_model(folder):
                    note(row)
                continue
            bench = stack.enter_context(DEVICES[transport](folder))
            for name, state in cases(transport):
                for number in SIGNALS:
                    with tempfile.TemporaryDirectory() as own:
                        if name:
                            found = command(bench, Path(own), name, state, number)
                        else:
                            found = request(bench, Path(own), state, number)
                    what = f"a first inference, {state}" if state in SLOW_MODELS else state
                    where = {"transport": transport, "command": name or "a client"}
                    where |= {"worker is in": what if name else f"{state}, stopped", "signal": number.name}
                    note(where | found)
    worst = {
        transport: max(row["free_s"] for row in rows if row["transport"] == transport) for transport in arguments.only
    }
    show("Seconds until the device is free", pivot(rows))
    save(arguments.out, {"worst_s": worst, "kills": rows})


def pivot(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each transport, command and state, with a column for each signal."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = {name: row[name] for name in ("transport", "command", "worker is in")}
        found.setdefault(tuple(key.values()), key)[row["signal"]] = row["free_s"]
    return list(found.values())


if __name__ == "__main__":
    main()
