"""What known_hosts says, compared with what OpenSSH's own tools make of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from peers.namespaces import find_program
from peers.ssh import Key

from latlab.harness.transports.ssh.known_hosts import check_host_key, fingerprint, read_known_hosts
from latlab.harness.transports.ssh.route import Hop, StepError


def hop(host: str, port: int = 22, alias: str | None = None) -> Hop:
    return Hop(host, port, "me", alias, (), False, (Path("known_hosts"),))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    find_program("ssh-keygen")
    return Key.generate(tmp_path_factory.mktemp("key") / "key")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Key:
    find_program("ssh-keygen")
    return Key.generate(tmp_path_factory.mktemp("other") / "key")


def blob(key: Key, folder: Path) -> bytes:
    (folder / "one").write_text(f"x {key.public}\n")
    return read_known_hosts([folder / "one"], "x")[0].key


@pytest.mark.parametrize(
    ("names", "host", "port"),
    [
        ("pi", "pi", 22),
        ("PI", "pi", 22),
        ("other,pi", "pi", 22),
        ("p?", "pi", 22),
        ("*.lab", "pi.lab", 22),
        ("*.lab,!server.lab", "pi.lab", 22),
        ("[pi]:2222", "pi", 2222),
        ("[*.lab]:2222", "pi.lab", 2222),
        ("192.0.2.1", "192.0.2.1", 22),
        ("fe80::1", "fe80::1", 22),
        ("[fe80::1]:2222", "fe80::1", 2222),
    ],
)
@pytest.mark.parametrize("hashed", [False, True])
def test_names(key: Key, tmp_path: Path, names: str, host: str, port: int, hashed: bool) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"{names} {key.public}\n")
    if hashed:
        if {*"*?!"} & {*names}:
            pytest.skip("patterns are not hashed")
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
        # By field: the salt, the hash and the key are base64, and may hold "pi" by chance.
        assert file.read_text().split()[0].startswith("|1|")
    known = read_known_hosts([file], hop(host, port).known_as)
    check_host_key(hop(host, port), known, known[0].key_type, blob(key, tmp_path))
    shown = subprocess.run(["ssh-keygen", "-lf", "-"], input=key.public, capture_output=True, text=True, check=True)
    assert fingerprint(known[0].key) == shown.stdout.split()[1]


@pytest.mark.parametrize(
    ("names", "host", "port"),
    [
        ("pi", "pie", 22),
        ("pi", "pi", 2222),
        ("[pi]:2222", "pi", 22),
        ("[pi]:2222", "p", 2222),
        ("p[a-z]", "pi", 22),
        ("*,!pi", "pi", 22),
        ("|1|AAAA|AAAA", "pi", 22),
        ("|1|damaged", "pi", 22),
    ],
)
def test_names_of_others(key: Key, tmp_path: Path, names: str, host: str, port: int) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"{names} {key.public}\n")
    known = read_known_hosts([file], hop(host, port).known_as)
    with pytest.raises(StepError, match="not known yet"):
        check_host_key(hop(host, port), known, "ssh-ed25519", blob(key, tmp_path))


def test_damaged_lines_do_not_matter(key: Key, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_bytes(b"\xff\xfe\n#\n\npi\npi ssh-ed25519\npi ssh-ed25519 !!!\n@what\npi " + key.public.encode() + b"\n")
    (known,) = read_known_hosts([tmp_path / "missing", file, tmp_path / "missing/too"], "pi")
    assert known.line == 8


def test_one_of_several_keys_is_enough(key: Key, other: Key, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"pi {other.public}\npi {key.public}\n")
    check_host_key(hop("pi"), read_known_hosts([file], "pi"), "ssh-ed25519", blob(key, tmp_path))


def test_revoked_keys(key: Key, other: Key, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"pi {key.public}\n@revoked * {key.public}\n@revoked * {other.public}\n")
    known = read_known_hosts([file], "pi")
    with pytest.raises(StepError, match=r"revoked .*line 2") as caught:
        check_host_key(hop("pi"), known, "ssh-ed25519", blob(key, tmp_path))
    assert caught.value.lasting


def test_authorities_vouch_for_certificates_only(key: Key, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"@cert-authority * {key.public}\n")
    assert read_known_hosts([file], "pi") == []


def test_a_key_of_another_type_is_another_key(key: Key, other: Key, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"pi {other.public}\n")
    known = read_known_hosts([file], "pi")
    with pytest.raises(StepError, match="may be an attack"):
        check_host_key(hop("pi"), known, "ecdsa-sha2-nistp256", blob(key, tmp_path))


def test_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="cannot read") as caught:
        read_known_hosts([tmp_path], "pi")
    assert caught.value.step == "host key"
