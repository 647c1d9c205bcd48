"""A worker that means harm, on the machine in front of us: it may say and do what it likes with its own rights, but the
controller does nothing for it. After each: an error that names the device, nothing changed outside, no row, and the
other device has not noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hostile_workers import write_worker
from transport_conformance import Model, make_model

from latlab.harness.devices import session as device_module
from latlab.harness.exporters import ArtifactCache, ExportRequest
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.lab import Lab
from latlab.harness.store.store import Store
from latlab.harness.transports import DeviceLostError
from latlab.harness.transports.local.config import LocalDevice
from latlab.harness.transports.local.transport import LocalTransport
from latlab.harness.transports.simulated.config import SimulatedDevice
from latlab.harness.transports.worker_archive import worker_program

SMALL = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
ESCAPES = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""All that a terminal obeys but the line break."""


def snapshot(folder: Path) -> dict[str, object]:
    """Every file and link below a folder, with all that could have been changed."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        what: object = None
        if path.is_symlink():
            what = os.readlink(path)
        elif path.is_file():
            what = path.read_bytes()
        found[str(path.relative_to(folder))] = (stat.S_IFMT(status.st_mode), status.st_mode, status.st_nlink, what)
    return found


class Sandbox:
    """A lab with a hostile device and a good one, and places that neither the worker nor the controller may touch.

    Args:
        folder: for everything.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.outside, self.work = folder, folder / "outside", folder / "work"
        (self.outside / "deep").mkdir(parents=True)
        (self.outside / "precious").write_text("keep me")
        (self.outside / "deep" / "model.onnx").write_bytes(b"\x08mine")
        (self.outside / "precious").chmod(0o600)
        self.model = make_model(folder / "products.onnx", 2)
        self.lab = Lab(folder / "latlab.db")
        self._before = snapshot(self.outside)

    def worker(self, program: str, **fields: Any) -> None:
        python = write_worker(self.folder, textwrap.dedent(program))
        evil = LocalDevice(python=python, work=self.work, **fields)
        self.lab.inventory = Inventory({"evil": evil, "good": SimulatedDevice(kind="ideal")})

    def measure(self) -> tuple[pd.DataFrame, str]:
        """Both devices at once: the rows, and what was told of the hostile one."""
        rows = self.lab.measure(["evil", "good"], model=str(self.model.path)).rows
        incidents = self.lab.store.incidents()
        assert set(incidents["device"]) <= {"evil"}
        return rows.assign(device=[target.partition("/")[0] for target in rows["target"]]), "\n".join(
            incidents["message"]
        )

    def check(self, rows: pd.DataFrame, *, allowed: tuple[str, ...] = ("device_lost",)) -> None:
        """Nothing changed outside; a good row of the good device; of the other, none but of these statuses."""
        assert snapshot(self.outside) == self._before
        by_device = rows.groupby("device")["status"].apply(list).to_dict()
        assert by_device.pop("good") == ["ok"]
        assert all(status in allowed for status in by_device.pop("evil", []))
        with self.lab.store.session() as session:
            passes = session.connection().exec_driver_sql(
                "SELECT count(*) FROM passes p JOIN measurements m ON m.id = p.measurement_id "
                "JOIN campaigns c ON c.id = m.campaign_id WHERE c.target LIKE 'evil/%'"
            )
            assert passes.scalar_one() == 0 or "ok" in allowed

    def refuses(self, program: str, told: str, **fields: Any) -> None:
        """Measures on a worker of this program; that fails as told, and harms nothing."""
        self.worker(program, **fields)
        rows, messages = self.measure().rows
        self.check(rows)
        assert re.search(told, messages), messages
        assert "evil" in messages
        assert not ESCAPES.search(messages)


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    for name in ("HELLO_S", "REQUEST_S", "LOAD_S", "TIME_FLOOR_S", "TIME_REPLY_S"):
        monkeypatch.setattr(device_module, name, 2.0)
    monkeypatch.setattr("latlab.harness.fleet.retries.BACKOFF_S", (0.01,))
    return Sandbox(tmp_path)


def test_an_honest_stand_in_is_measured(sandbox: Sandbox) -> None:
    """Or the tests below would show nothing."""
    sandbox.worker("serve()")
    rows, messages = sandbox.measure().rows
    sandbox.check(rows, allowed=("ok",))
    assert rows["status"].tolist() == ["ok", "ok"]
    assert not messages


# What it says

SAID: dict[str, tuple[str, str]] = {
    "a pickle": (
        "import pickle\n"
        "class Touch:\n"
        "    def __reduce__(self):\n"
        "        return (open, (os.path.join(OUTSIDE, 'pwned'), 'w'))\n"
        "serve(lambda request, reply: pickle.dumps(Touch()) + b'\\n')",
        "broken reply to 'hello'",
    ),
    "a path for a handle": (
        "serve(lambda q, r: {**r, 'handle': '../../outside/x'} if q['verb'] == 'load' else r)",
        "'handle' must be a whole number",
    ),
    "a path for a lease": (
        "serve(lambda q, r: {**r, 'lease': {'folder': '../../../outside', 'token': 1}} if q['verb'] == 'hello' else r)",
        "'folder' must be text of the form",
    ),
    "a lease of nothing": (
        "serve(lambda q, r: {**r, 'lease': {'folder': '0' * 16, 'token': -5}} if q['verb'] == 'hello' else r)",
        "'token' must be a whole number",
    ),
    "a process id of all processes": (
        "serve(lambda q, r: {**r, 'pid': -1} if q['verb'] == 'hello' else r)",
        "'pid' must be a whole number",
    ),
    "CPUs that are none": (
        "serve(lambda q, r: {**r, 'cpus': {'count': 'many'}} if q['verb'] == 'hello' else r)",
        "'count' must be a whole number",
    ),
    "samples that are not numbers": (
        "serve(lambda q, r: {**r, 'samples_ns': ['1'] * q['runs']} if q['verb'] == 'time' else r)",
        "'samples_ns' must be a list",
    ),
    "samples that are not finite": (
        "serve(lambda q, r: json.dumps({**r, 'samples_ns': [float('nan')] * q['runs']}).encode() + b'\\n'"
        " if q['verb'] == 'time' else r)",
        "NaN is not JSON",
    ),
    "more than a double holds": (
        "serve(lambda q, r: json.dumps({**r, 'telemetry': 0}).encode().replace(b'0}', b'1e999}') + b'\\n'"
        " if q['verb'] == 'time' else r)",
        "1e999 is no number",
    ),
    "samples twice": (
        "serve(lambda q, r: json.dumps(r).encode()[:-1] + b',\"samples_ns\":[1,1,1,1,1,1,1,1,1,1]}\\n'"
        " if q['verb'] == 'time' else r)",
        "a name is given twice",
    ),
    "a million samples": (
        "serve(lambda q, r: {**r, 'samples_ns': [7] * 1000000} if q['verb'] == 'time' else r)",
        "'samples_ns' must be a list of at most",
    ),
    "a sea of telemetry": (
        "serve(lambda q, r: {**r, 'telemetry': {'before': {}, 'after': {str(n): 1 for n in range(100000)}}}"
        " if q['verb'] == 'time' else r)",
        "more than 20000 values",
    ),
    "an abyss": (
        "serve(lambda q, r: b'{\"id\":%d,\"ok\":true,\"x\":%s1%s}\\n' % (q['id'], b'[' * 100000, b']' * 100000))",
        "nested too deeply",
    ),
    "the answer to something else": ("serve(lambda q, r: {**r, 'id': r['id'] + 1})", "it answers request 2, not 1"),
    "answers that nobody asked for": (
        'say(b\'{"id":1,"ok":true,"have":true}\\n\' * 1000)\nserve()',
        "broken reply to 'hello'",
    ),
    "an unknown failure": (
        "serve(lambda q, r: failure(q, '__import__(\"os\").system(\"id\")', 'x'))",
        "a failure of an unknown kind",
    ),
    "escape sequences": (
        "serve(lambda q, r: b'\\x1b]0;pwned\\x07\\x1b[2J\\x9b31m\\n')",
        "broken reply to 'hello'",
    ),
    "escape sequences on stderr": (
        "os.write(2, b'\\x1b[2J\\x1b]0;pwned\\x07 last words \\xe2\\x80\\xae\\n'); time.sleep(0.2); sys.exit(3)",
        "last words",
    ),
}


@pytest.mark.parametrize("what", SAID)
def test_what_it_says(sandbox: Sandbox, what: str) -> None:
    program, told = SAID[what]
    sandbox.refuses(program, told)


def test_lies_about_leases_harm_nobody_else(sandbox: Sandbox) -> None:
    """It takes another device's folder for its own, and the highest number there is."""
    sandbox.worker("serve()")
    sandbox.measure()
    with sandbox.lab.store.session() as session:
        leases = dict(session.connection().exec_driver_sql("SELECT device, folder FROM leases").all())
    lie = {"folder": leases["good"], "token": 1 << 53}
    sandbox.worker(f"serve(lambda q, r: {{**r, 'lease': {lie}}} if q['verb'] == 'hello' else r)")
    rows = sandbox.lab.measure(["evil", "good"], model=str(sandbox.model.path), new_session=True).rows
    assert rows["status"].tolist() == ["ok", "ok"]
    rows = sandbox.lab.measure("good", model=str(sandbox.model.path), new_session=True).rows
    assert rows["status"].tolist() == ["ok"]


def test_a_process_id_of_ours_is_left_alone(sandbox: Sandbox) -> None:
    """It says that it is another process, and then hangs, so that the controller has every reason to kill it."""
    victim = subprocess.Popen(["sleep", "60"])
    try:
        sandbox.worker(
            f"serve(lambda q, r: {{**r, 'pid': {victim.pid}}} if q['verb'] == 'hello' "
            "else None if q['verb'] == 'load' else r)"
        )
        rows, _ = sandbox.measure().rows
        sandbox.check(rows, allowed=("timeout",))
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


# How it says it

EXHAUSTING = {
    "a line without end": ("while True: say(b'x' * 65536)", "a line of more than 4194304 bytes"),
    "words on stderr without end": (
        "while True: os.write(2, b'lorem ipsum ' * 5000 + b'\\n')",
        "no reply to 'hello' within 2 s",
    ),
    "a byte now and then": (
        "for n in range(10**6):\n    say(b' ')\n    time.sleep(0.01)",
        "no reply to 'hello' within 2 s",
    ),
    "nothing": ("time.sleep(600)", "no reply to 'hello' within 2 s"),
    "nothing, and signals are ignored": (
        "for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "while True: time.sleep(600)",
        "no reply to 'hello' within 2 s",
    ),
    "its end": ("sys.exit(7)", "ended with exit code 7"),
    "its output closed": ("os.close(1); time.sleep(600)", "closed its output"),
    "a promise of a slow network": (
        "serve(lambda q, r: {**r, 'first_ns': 10**15} if q['verb'] == 'load' else None if q['verb'] == 'time' else r)",
        "no reply to 'time' within",
    ),
}


@pytest.mark.parametrize("what", EXHAUSTING)
def test_how_it_says_it(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    program, told = EXHAUSTING[what]
    monkeypatch.setattr(device_module, "TIME_CEILING_S", 1.0)
    before_kib, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    if what == "a promise of a slow network":
        monkeypatch.setattr("latlab.harness.measurement.scheduler.MAX_ATTEMPTS", 1)
        sandbox.worker(program)
        rows, _ = sandbox.measure().rows
        sandbox.check(rows, allowed=("timeout",))  # for all that is known it is the network's fault
        assert re.search(told, rows.set_index("device").loc["evil", "error"])
    else:
        sandbox.refuses(program, told)
    assert time.monotonic() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 200_000


def test_a_byte_at_a_time_is_a_reply(sandbox: Sandbox) -> None:
    sandbox.worker(
        """
        def twist(request, reply):
            for byte in json.dumps(reply).encode() + b"\\n":
                say(bytes([byte]))
        serve(twist)
        """
    )
    rows, _ = sandbox.measure().rows
    sandbox.check(rows, allowed=("ok",))
    assert rows["status"].tolist() == ["ok", "ok"]


def test_a_worker_that_reads_nothing_and_never_stops_talking(tmp_path: Path) -> None:
    """While a request fills the pipe, its stderr is always ready to be read."""
    python = write_worker(tmp_path, "while True: os.write(2, b'x' * 65536)")
    with LocalTransport("evil", python, tmp_path / "work") as transport:
        start = time.monotonic()
        with pytest.raises(DeviceLostError, match="device evil: no reply to 'telemetry' within 1 s") as caught:
            transport.request("telemetry", 1.0, junk="x" * 1_000_000)
        assert caught.value.timed_out
        assert time.monotonic() - start < 10


def test_a_child_that_keeps_the_pipes_open(sandbox: Sandbox) -> None:
    """The worker is gone, but its output does not end."""
    sandbox.worker(
        """
        child = os.fork()
        if child:
            with open(os.path.join(HERE, "children"), "a") as file:
                print(child, file=file)
            os._exit(0)
        os.setsid()
        time.sleep(600)
        """
    )
    try:
        rows, messages = sandbox.measure().rows
        sandbox.check(rows)
        assert "no reply to 'hello' within 2 s" in messages
    finally:
        for child in (sandbox.folder / "children").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)


# What it does to files that it shares with the controller

PLANTED = {
    "incoming leads elsewhere": (
        """
        def twist(request, reply):
            if request["verb"] == "hello":
                os.rename(os.path.join(WORK, "incoming"), os.path.join(WORK, "moved"))
                os.symlink(OUTSIDE, os.path.join(WORK, "incoming"))
            return reply
        serve(twist)
        """,
        r"incoming is (not the folder that it was|a link, not a folder)",
    ),
    "incoming is a file": (
        """
        def twist(request, reply):
            if request["verb"] == "hello":
                os.rename(os.path.join(WORK, "incoming"), os.path.join(WORK, "moved"))
                open(os.path.join(WORK, "incoming"), "w").close()
            return reply
        serve(twist)
        """,
        "incoming is not the folder that it was",
    ),
    "what is to come is there, as a folder": (
        """
        def twist(request, reply):
            if request["verb"] == "put":
                os.makedirs(os.path.join(WORK, "incoming", request["sha256"]), exist_ok=True)
            return reply
        serve(twist)
        """,
        "cannot bring .*onnx to the device",
    ),
}


@pytest.mark.parametrize("what", PLANTED)
def test_traps_for_pushes(sandbox: Sandbox, what: str) -> None:
    program, told = PLANTED[what]
    sandbox.refuses(program, told)


def test_links_under_the_names_of_pushes_are_not_followed(sandbox: Sandbox) -> None:
    sandbox.worker(
        """
        def twist(request, reply):
            if request["verb"] == "put" and not reply["have"]:
                for name in (request["sha256"], request["sha256"] + ".part"):
                    os.symlink(os.path.join(OUTSIDE, "precious"), os.path.join(WORK, "incoming", name))
                reply["have"] = False
            return reply
        serve(twist)
        """
    )
    rows, _ = sandbox.measure().rows
    sandbox.check(rows, allowed=("ok",))
    assert not (sandbox.work / "incoming" / sandbox.model.sha256).is_symlink()


def test_links_in_place_of_the_program_are_not_followed(sandbox: Sandbox) -> None:
    """Laid by an earlier worker, for the next controller to write through."""
    program = worker_program()
    sandbox.work.mkdir()
    names = [program.name, *(f"{program.name}.{pid}" for pid in range(os.getpid() - 5, os.getpid() + 50))]
    for name in names:
        (sandbox.work / name).symlink_to(sandbox.outside / "precious")
    sandbox.worker("serve()")
    rows, _ = sandbox.measure().rows
    sandbox.check(rows, allowed=("ok",))
    assert not (sandbox.work / program.name).is_symlink()
    assert (sandbox.work / program.name).read_bytes() == program.content


def test_a_link_in_place_of_the_work_folder(sandbox: Sandbox) -> None:
    sandbox.work.symlink_to(sandbox.outside / "deep")
    (sandbox.outside / "deep" / "incoming").mkdir()
    sandbox._before = snapshot(sandbox.outside)
    sandbox.refuses("serve()", "work is a link, not a folder")


def test_a_file_changed_through_its_hard_link_is_noticed(sandbox: Sandbox, tmp_path: Path) -> None:
    """A push to this machine costs nothing because it is a hard link: the worker can write to the cache's own file.
    Nobody gets that file any more: it is hashed whenever it is taken from the cache."""
    sandbox.lab._cache_folder = tmp_path / "cache"
    sandbox.worker(
        """
        def twist(request, reply):
            if request["verb"] == "put" and reply["have"]:
                with open(os.path.join(WORK, "incoming", request["sha256"]), "r+b") as file:
                    file.write(b"poison")
            return failure(request, "crash", "done") if request["verb"] == "load" else reply
        serve(twist)
        """
    )
    rows = sandbox.lab.measure("evil", space="nasbench201", archs=[SMALL], policy="help").rows
    assert rows["status"].tolist() == ["crash"]
    (poisoned,) = (tmp_path / "cache" / "files").glob("*.onnx")
    assert poisoned.read_bytes().startswith(b"poison")
    assert ArtifactCache(tmp_path / "cache").get(ExportRequest("nasbench201", SMALL, "onnx")) is None
    rows = sandbox.lab.measure("good", space="nasbench201", archs=[SMALL], policy="help").rows
    assert rows["status"].tolist() == ["ok"]
    (path,) = (tmp_path / "cache" / "files").glob("*.onnx")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == rows["artifact_sha256"][0] == path.stem


# What people see of it

EVIL_TEXT = "=HYPERLINK(1) <script>alert(1)</script> [red]x[/red] $(touch pwned) \\x1b]0;pwned\\x07\\x1b[2J\\u202e"
SEEN = f"""
EVIL = "{EVIL_TEXT}"
HELLO["cpus"]["model"] = EVIL
HELLO["platform"] = HELLO["executable"] = EVIL
HELLO["runtimes"]["onnxruntime"]["version"] = EVIL[:100]
HELLO["runtimes"][EVIL] = {{"version": None, "why": EVIL}}
HELLO["gpus"] = [{{"name": EVIL}}]
HELLO["fingerprint"]["os"] = EVIL
LOADED["provider"] = LOADED["runtime_version"] = EVIL[:100]
def twist(request, reply):
    if request["verb"] == "time":
        reply["telemetry"]["after"] = {{"temperature_c": {{EVIL: 40.0}}, "governor": [EVIL]}}
        reply["warnings"] = [EVIL.replace("\\x1b", "").replace("\\x07", "").replace("\\u202e", "")]
    if request["verb"] == "load" and os.path.exists(os.path.join(HERE, "fail")):
        return failure(request, "unsupported_op", EVIL)
    return reply
serve(twist)
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A store with a row of each kind that the worker could bring about, and an inventory file."""
    sandbox = Sandbox(tmp_path_factory.mktemp("seen"))
    python = write_worker(sandbox.folder, SEEN)
    (sandbox.folder / "inventory.yaml").write_text(
        f"devices: {{evil: {{transport: local, python: {python}, work: {sandbox.work}}}}}\n"
    )
    first = cli(sandbox, "measure", "evil", "--model", str(sandbox.model.path))
    assert first.returncode == 0, first.stderr
    (sandbox.folder / "fail").touch()
    cli(sandbox, "measure", "evil", "--model", str(sandbox.model.path), "--new-session")
    assert Store(sandbox.folder / "latlab.db").table()["status"].tolist() == ["ok", "unsupported_op"]
    yield sandbox
    assert not list(sandbox.folder.rglob("pwned"))


def cli(sandbox: Sandbox, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "latlab.harness", *words]
    done = subprocess.run(command, cwd=sandbox.folder, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    assert not ESCAPES.search(done.stdout + done.stderr)
    return done


@pytest.mark.parametrize(
    "words",
    [
        ["show"],
        ["show", "--json"],
        ["measure", "evil", "--model", "products.onnx", "--raw"],
        ["measure", "evil", "--model", "products.onnx", "--json"],
        ["devices"],
        ["doctor", "evil"],
        ["doctor", "evil", "--json"],
    ],
    ids=" ".join,
)
def test_terminals_and_json(seen: Sandbox, words: list[str]) -> None:
    done = cli(seen, *words)
    assert done.stdout
    if "--json" in words:
        for line in done.stdout.splitlines():
            json.loads(line, parse_constant=lambda constant: pytest.fail(constant))


def test_reports_and_tables(seen: Sandbox) -> None:
    target = Store(seen.folder / "latlab.db").table()["target"][0]
    done = cli(seen, "report", "--target", target, "--space", "model", "--out", "report.html")
    assert done.returncode == 0, done.stderr
    page = (seen.folder / "report.html").read_text(encoding="utf-8")
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)
    cli(seen, "export", "--out", "rows.csv")
    cli(seen, "export", "--out", "rows.parquet")
    text = (seen.folder / "rows.csv").read_text(encoding="utf-8")
    rows = pd.read_csv(seen.folder / "rows.csv")
    assert rows["error"].dropna().iloc[0].startswith("'=HYPERLINK")
    assert not re.search(r'(?m)(^|,)"?[=@+]', text)
    kept = pd.read_parquet(seen.folder / "rows.parquet")
    assert kept["error"].dropna().iloc[0].startswith("=HYPERLINK")


def test_own_model_is_not_what_is_changed(model: Model) -> None:
    """The session's shared network is whole after all this."""
    assert hashlib.sha256(model.path.read_bytes()).hexdigest() == model.sha256
