"""A PostgreSQL server from Debian's package, of the test's own, on a free port of the loopback interface."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .namespaces import ENVIRONMENT, unavailable

__all__ = ["PostgreSQLServer"]

_PROGRAMS = Path("/usr/lib/postgresql")
_USER = "postgres"
PASSWORD = "s3cr3t pass/word@x"
"""The password of the user `guarded`, who alone has to say one."""
_ACCESS = """
host all guarded all scram-sha-256
host all all 127.0.0.1/32 trust
local all all trust
"""


class PostgreSQLServer:
    """A server with a folder of its own below /tmp.

    Args:
        durable: wait for the disk at each commit, as servers do; tests are quicker without.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._sync = "on" if durable else "off"
        found = sorted(_PROGRAMS.glob("*/bin/initdb"), key=lambda one: float(one.parts[-3]))
        if not found:
            unavailable("PostgreSQL is not installed (Debian's package postgresql)")
        try:
            import psycopg
        except ImportError:
            unavailable("psycopg is not installed")
        self._connect = psycopg.connect
        self._programs = found[-1].parent
        self._made = 0
        self._folder = Path(tempfile.mkdtemp(prefix="latlab-pg-", dir="/tmp"))  # its socket needs a short path
        # The server refuses to run as root.
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(self._folder, _USER, _USER)
            self._as_user = {"user": _USER, "group": _USER, "extra_groups": []}
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = int(taken.getsockname()[1])
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", _USER, "--auth=trust", "--locale=C.UTF-8", "--no-sync")
        (self._folder / "data" / "pg_hba.conf").write_text(_ACCESS)
        self.start()
        self.execute(f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'")

    def start(self) -> None:
        """Start the server."""
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync={self._sync}"
        log, data = str(self._folder / "log"), str(self._folder / "data")
        self._run("pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` ends connections in order, `immediate` as a crash does."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", "-m", mode, "stop")

    def close(self) -> None:
        """Stop the server, and remove all that it has."""
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        """Make an empty database, and return its address."""
        self._made += 1
        name = f"lab{self._made}"
        self.execute(f"CREATE DATABASE {name}")
        return self.address(name)

    def address(self, database: str, user: str = _USER) -> str:
        """Return the address of a database; it need not exist."""
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str, database: str = _USER) -> list[tuple[Any, ...]]:
        """Run one statement, and return its rows."""
        where = f"host=127.0.0.1 port={self.port} user={_USER} dbname={database}"
        with self._connect(where, autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *words],
            env=ENVIRONMENT,
            cwd="/tmp",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,  # the server inherits it
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            start_new_session=True,
            **self._as_user,
        )
        if done.returncode:
            log = self._folder / "log"
            said = (done.stdout or "") + (log.read_text() if log.exists() else "")
            raise RuntimeError(f"{program} ended with {done.returncode}: {said.strip()}")
