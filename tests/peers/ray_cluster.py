"""A real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Cluster"]


@dataclass
class Cluster:
    """Two nodes with a processor each, on the loopback interface; its users need a token."""

    folder: Path
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    temporary: str = field(default_factory=lambda: tempfile.mkdtemp(prefix="ray-"))
    """Ray's own files; paths of sockets are to be short."""

    @classmethod
    def on_loopback(cls, folder: Path) -> Cluster:
        """Return a cluster on a free port; none of its processes is started yet."""
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        token = secrets.token_urlsafe(16)
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_ADDRESS": f"127.0.0.1:{port}"}
        more = {"RAY_USAGE_STATS_ENABLED": "0", "LATLAB_TEST_CLUSTER": str(folder)}
        return cls(folder, port, os.environ | own | more)

    def start_nodes(self) -> None:
        """Start the head, and a second node."""
        self.start("--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self.temporary}")
        self.start(f"--address=127.0.0.1:{self.port}")

    def start(self, *words: str) -> None:
        """Start a node with the words of `ray start`."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--node-ip-address=127.0.0.1"]
        done = subprocess.run([*command, *words], env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def processes(self, *words: str) -> list[int]:
        """Return the processes whose command lines have all these words and name this cluster."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    mine = str(self.folder) in (entry / "environ").read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if mine and all(word in line for word in words):
                    found.append(int(entry.name))
        return found

    def stop(self) -> None:
        """End all processes of the cluster."""
        for process in self.processes():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(self.temporary, ignore_errors=True)
