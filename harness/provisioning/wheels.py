"""Fetching of wheels for another machine, with all that they require.

pip chooses versions and fetches files for the device's tags. The requirements of a wheel are resolved here and not
by pip, because pip evaluates their markers ("only on x86_64") for the machine it runs on: torch for
a Raspberry Pi would drag in the CUDA libraries of the controller.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.provisioning.platforms import Platform

__all__ = ["NoWheelError", "Wheel", "WheelFetcher"]

PIP_S = 3600.0
ROUNDS = 20
"""The most rounds of downloads; each level of requirements takes one, and each change of a version.

torch with all of CUDA takes four.
"""
_NOT_FOUND = re.compile(r"No matching distribution found for (\S+)")
_UNREACHED = re.compile(r"connection broken by|Could not fetch URL|Network is unreachable|Max retries exceeded")


class NoWheelError(Exception):
    """No wheel fits the device. If `offline` is true, some package index was not reached, so one may exist there."""

    def __init__(self, requirement: str, platform: Platform, *, offline: bool) -> None:
        super().__init__(f"there is no wheel of {requirement} for {platform}")
        self.requirement, self.platform, self.offline = requirement, platform, offline


@dataclass(frozen=True)
class Wheel:
    """A wheel on this machine."""

    path: Path
    name: str
    """The distribution's normalised name."""
    version: Version
    requires: tuple[Requirement, ...]
    """The requirements in the wheel's metadata, with markers."""


@dataclass(frozen=True)
class _Want:
    """The version and extras that are required of one distribution so far."""

    specifier: SpecifierSet
    extras: frozenset[str]


class WheelFetcher:
    """A fetcher of wheels for one device. Fetched wheels are kept, so later calls need no internet for them.

    Args:
        platform: the device's platform.
        folder: where wheels are kept.
        find_links: further folders or pages with wheels, like pip's option of that name.
    """

    def __init__(self, platform: Platform, folder: Path, find_links: Sequence[str] = ()) -> None:
        self.platform, self._folder = platform, folder
        self._find_links = [*find_links, str(folder)]
        self._chosen: dict[str, Wheel] = {}

    def fetch(
        self, requirements: Iterable[str], indexes: Sequence[str] = (), bare: Collection[str] = ()
    ) -> list[Wheel]:
        """Return wheels that meet the requirements, and those that they require in turn.

        Args:
            requirements: requirements as in PEP 508.
            indexes: indexes to search in addition to those of pip's configuration.
            bare: normalised names of distributions whose own requirements are left out.

        Raises:
            NoWheelError: no wheel fits.
            LatlabError: pip is missing, or fails otherwise.
        """
        roots = [Requirement(text) for text in requirements]
        before = dict(self._chosen)
        try:
            return self._fetch(roots, indexes, bare)
        except NoWheelError:
            self._chosen = before
            raise

    def _fetch(self, roots: Sequence[Requirement], indexes: Sequence[str], bare: Collection[str]) -> list[Wheel]:
        for _ in range(ROUNDS):
            wants = self._closure(roots, bare)
            todo = {
                name: want
                for name, want in wants.items()
                if name not in self._chosen or not want.specifier.contains(self._chosen[name].version, prereleases=True)
            }
            if not todo:
                return [self._chosen[name] for name in sorted(wants)]
            for wheel in self._download(todo, indexes):
                self._chosen[wheel.name] = wheel
        raise LatlabError(f"the requirements of {', '.join(map(str, roots))} contradict each other on {self.platform}")

    def _closure(self, roots: Sequence[Requirement], bare: Collection[str]) -> dict[str, _Want]:
        """Return what is required as far as it is known: the wheels that are still missing may require more."""
        wants: dict[str, _Want] = {}
        todo = list(roots)
        while todo:
            requirement = todo.pop()
            name = canonicalize_name(requirement.name)
            known = wants.get(name, _Want(SpecifierSet(), frozenset()))
            want = _Want(known.specifier & requirement.specifier, known.extras | requirement.extras)
            if name in wants and want == known:
                continue
            wants[name] = want
            if name in self._chosen and name not in bare:
                todo += [one for one in self._chosen[name].requires if self._applies(one, want.extras)]
        return wants

    def _applies(self, requirement: Requirement, extras: frozenset[str]) -> bool:
        marker = requirement.marker
        if marker is None:
            return True
        return any(marker.evaluate({**self.platform.markers, "extra": extra}) for extra in extras or {""})

    def _download(self, wants: Mapping[str, _Want], indexes: Sequence[str]) -> list[Wheel]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".fetching-") as folder:
            self._pip(folder, [f"{name}{want.specifier}" for name, want in wants.items()], indexes)
            wheels = []
            for path in Path(folder).glob("*.whl"):
                kept = self._folder / path.name
                path.replace(kept)
                wheels.append(_read(kept))
        return wheels

    def _pip(self, folder: str, requirements: Sequence[str], indexes: Sequence[str]) -> None:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--dest", folder, "--progress-bar=off", "--no-input", "--disable-pip-version-check", "--retries=2"]
        command += self.platform.pip_arguments
        command += [word for link in self._find_links for word in ("--find-links", link)]
        command += [word for index in indexes for word in ("--extra-index-url", index)]
        try:
            done = subprocess.run(
                [*command, "--", *requirements],
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=PIP_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LatlabError(f"pip took more than {PIP_S:.0f} s to fetch {', '.join(requirements)}") from None
        if done.returncode == 0:
            return
        if "No module named pip" in done.stderr:
            raise LatlabError(
                f"{sys.executable} has no pip, which fetches the wheels",
                f"Install it: {sys.executable} -m ensurepip (or: uv pip install pip).",
            )
        missing = _NOT_FOUND.search(done.stderr)
        if missing:
            raise NoWheelError(missing.group(1), self.platform, offline=bool(_UNREACHED.search(done.stderr)))
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        if shutil.disk_usage(self._folder).free < 1 << 26:
            errors.append(f"{self._folder} has hardly any space left.")
        raise LatlabError(f"pip cannot fetch {', '.join(requirements)}", "\n".join(errors[-5:]))


def _read(path: Path) -> Wheel:
    """Return a wheel with the requirements from its metadata.

    Raises:
        BadInputError: it cannot be read; it is then removed.
    """
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            (metadata,) = [n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
            text = archive.read(metadata).decode("utf-8", "replace")
        lines = HeaderParser().parsestr(text).get_all("Requires-Dist") or []
        return Wheel(path, name, version, tuple(Requirement(str(line)) for line in lines))
    except (InvalidWheelFilename, InvalidRequirement, zipfile.BadZipFile, ValueError, OSError) as error:
        path.unlink(missing_ok=True)
        raise BadInputError(f"the wheel {path.name} cannot be read: {error}", "Try again: it was removed.") from error
