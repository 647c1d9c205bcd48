"""Tests of verified files: a check is remembered until the device's next boot, and never for a changed file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from latlab.agents.workspace.verified_files import SeenWhole, signature_of


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    path = tmp_path / "boot_id"
    path.write_text("9c3f\n")
    return path


@pytest.fixture
def network(tmp_path: Path) -> str:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"network")
    return str(path)


def knows(tmp_path: Path, boot: Path, network: str) -> bool:
    return SeenWhole(str(tmp_path), str(boot)).knows(network, signature_of(network))


def test_it_is_known_to_the_next_worker(tmp_path: Path, boot: Path, network: str) -> None:
    assert not knows(tmp_path, boot, network)
    SeenWhole(str(tmp_path), str(boot)).add(network, signature_of(network))
    assert knows(tmp_path, boot, network)


@pytest.mark.parametrize("change", ["written to", "exchanged", "touched"])
def test_a_file_that_changed_is_not(tmp_path: Path, boot: Path, network: str, change: str) -> None:
    SeenWhole(str(tmp_path), str(boot)).add(network, signature_of(network))
    status = os.stat(network)
    if change == "exchanged":
        other = Path(f"{network}.other")
        other.write_bytes(b"NETWORK")
        other.replace(network)
    elif change == "written to":
        Path(network).write_bytes(b"netw0rk")
    os.utime(network, ns=(status.st_atime_ns, status.st_mtime_ns))  # who changes a file may set its time back
    assert not knows(tmp_path, boot, network)


def test_after_a_reboot_everything_is_hashed_again(tmp_path: Path, boot: Path, network: str) -> None:
    SeenWhole(str(tmp_path), str(boot)).add(network, signature_of(network))
    boot.write_text("0000\n")
    assert not knows(tmp_path, boot, network)


def test_a_system_that_does_not_name_its_boots(tmp_path: Path, network: str) -> None:
    SeenWhole(str(tmp_path), str(tmp_path / "none")).add(network, signature_of(network))
    assert not knows(tmp_path, tmp_path / "none", network)
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize(
    "junk", ["", "9c3f", "9c3f\nnet.onnx\n", "9c3f\nnet.onnx 1 2 x 4\n\n\0", "9c3f\nnet.onnx 1 2 3"]
)
def test_what_is_cut_off_or_damaged_counts_for_nothing(tmp_path: Path, boot: Path, network: str, junk: str) -> None:
    (tmp_path / "whole").write_text(junk)
    assert not knows(tmp_path, boot, network)
    SeenWhole(str(tmp_path), str(boot)).add(network, signature_of(network))
    assert knows(tmp_path, boot, network)


def test_it_does_not_grow(tmp_path: Path, boot: Path, network: str) -> None:
    for _ in range(50):
        SeenWhole(str(tmp_path), str(boot)).add(network, signature_of(network))
    assert len((tmp_path / "whole").read_text().splitlines()) <= 3
