"""Root filesystems of other architectures and releases: Debian packages and Python wheels, unpacked, never installed.

Trees are kept between runs, in the folder that LATLAB_TEST_PEERS names or else in the user's cache, under a hash of
what they consist of. Machines take them as lower layers of their root and do not write to them. Nothing in a tree is
run while it is made, so trees of any architecture can be made anywhere, and this machine's apt knows nothing of them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .namespaces import find_program, unavailable

_LAYOUT = 1
"""The version of the way in which trees are made; a new one leaves old trees unused."""
_MIRROR = "http://deb.debian.org/debian/"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_GLIBC_MINORS = (17, 27, 28, 34)
"""The glibc versions of manylinux tags that wheels have; Debian 12 has glibc 2.36."""
RUNTIMES = ("onnxruntime", "ai-edge-litert", "numpy")


class Tree(ABC):
    """A folder of files that is made once; its fields say what is in it."""

    @abstractmethod
    def make(self, folder: Path) -> None:
        """Unpacks it into an empty folder."""

    def ensure(self) -> Path:
        """Return the tree's folder, made now if it is missing; skip the test where it cannot be made."""
        name = f"{type(self).__name__.lower()}-{hashlib.sha256(f'{_LAYOUT} {self!r}'.encode()).hexdigest()[:16]}"
        folder = _cache() / name
        with _lock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                partial = folder.with_suffix(".partial")
                delete(partial)
                partial.mkdir()
                try:
                    self.make(partial)
                except subprocess.CalledProcessError as error:
                    delete(partial)
                    unavailable(f"{' '.join(error.cmd)} failed: {error.stderr.strip()[-1000:]}")
                partial.rename(folder)
        return folder


@dataclass(frozen=True)
class Packages(Tree):
    """Debian packages with all that they depend on."""

    architecture: str
    suite: str
    names: tuple[str, ...]

    def make(self, folder: Path) -> None:
        for program in ("apt-get", "dpkg"):
            find_program(program)
        if not _KEYRING.exists():
            unavailable("the package debian-archive-keyring is not installed")
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            for part in ("lists/partial", "cache/archives/partial"):
                (work / part).mkdir(parents=True)
            (work / "status").touch()
            (work / "sources.list").write_text(
                f"deb [arch={self.architecture} signed-by={_KEYRING}] {_mirror()} {self.suite} main\n"
            )
            (work / "apt.conf").write_text(self._apt_settings(work))
            apt = ["apt-get", "-qq", "-y"]
            _quietly(*apt, "update", apt_config=work / "apt.conf")
            _quietly(*apt, "--download-only", "install", *self.names, apt_config=work / "apt.conf")
            for package in sorted((work / "cache/archives").glob("*.deb")):
                _quietly("dpkg", "-x", str(package), str(folder))

    def _apt_settings(self, work: Path) -> str:
        settings = {
            "Dir::Etc::sourcelist": work / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": work / "lists",
            "Dir::State::status": work / "status",
            "Dir::Cache": work / "cache",
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        return "".join(f'{key} "{value}";\n' for key, value in settings.items())


@dataclass(frozen=True)
class Wheels(Tree):
    """Python packages for a machine such as `aarch64`, where Debian's Python of that version finds them."""

    machine: str
    python: str
    requirements: tuple[str, ...]

    def make(self, folder: Path) -> None:
        site = folder / f"usr/local/lib/python{self.python}/dist-packages"
        site.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as name:
            for wheel in download_wheels(self.machine, self.python, self.requirements, Path(name)):
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(site)


def runtimes(machine: str, python: str) -> Wheels:
    """Return the wheels of the runtimes that a worker uses, in the versions that the tests have here."""
    return Wheels(machine, python, tuple(f"{name}=={metadata.version(name)}" for name in RUNTIMES))


def download_wheels(machine: str, python: str, requirements: Sequence[str], folder: Path) -> list[Path]:
    """Download wheels, without those that they depend on, and return their paths."""
    tags = [f"--platform=manylinux_2_{minor}_{machine}" for minor in _GLIBC_MINORS]
    abis = [f"--abi=cp{python.replace('.', '')}", "--abi=abi3", "--abi=none"]
    only = ["--only-binary=:all:", "--no-deps", f"--python-version={python}", *abis, *tags]
    _quietly(sys.executable, "-m", "pip", "download", "--quiet", *only, "--dest", str(folder), *requirements)
    return sorted(folder.glob("*.whl"))


def delete(tree: Path) -> None:
    """Deletes a tree, but nothing of another filesystem that should be mounted in it."""
    subprocess.run(["rm", "-rf", "--one-file-system", str(tree)], check=True)


def _cache() -> Path:
    named = os.environ.get("LATLAB_TEST_PEERS")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(named) if named else base / "latlab-test-peers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock file, which one process at a time can do; the kernel frees it when the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _mirror() -> str:
    """Return the Debian mirror that this machine uses itself, since it can reach that one."""
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages"]
    lines = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    return next((line.split()[0] for line in lines if line.split()[1:] == ["Debian"]), _MIRROR)


def _quietly(*command: str, apt_config: Path | None = None) -> None:
    environment = {**os.environ, **({"APT_CONFIG": str(apt_config)} if apt_config else {}), "LC_ALL": "C"}
    subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
