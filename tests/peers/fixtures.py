"""A pytest plugin with the fixtures of peers: `peers` makes any number and closes all at the session's end."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from .adb_auth import AuthGate
from .linux_host import LinuxHost
from .loopback_host import LoopbackHost
from .namespaces import find_program, require_namespaces
from .network import Network
from .phone import AdbClient, Phone
from .pi import Pi
from .postgresql import PostgreSQLServer
from .ssh import Key


class _Peer(Protocol):
    def close(self) -> None: ...


P = TypeVar("P", bound=_Peer)


class Peers:
    """A maker of peers. All that have a network share one, so that they reach each other too.

    Every peer has a name of its own, and `close`, which may be left to the end of the session.
    """

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._made: list[_Peer] = []

    @cached_property
    def client_key(self) -> Key:
        """The key that all peers accept."""
        return Key.generate(self._factory.mktemp("client") / "id_ed25519")

    def linux_host(self, name: str = "host", disk_mb: int = 256) -> LinuxHost:
        """Return a new host with the tests' own Python and runtimes."""
        find_program("sshd")
        return self._keep(LinuxHost(self._network, name, self._folder(name), self.client_key, disk_mb))

    def loopback_host(self, name: str = "loopback") -> LoopbackHost:
        """Return an sshd on the loopback interface. It needs no root, so its tests are not marked `peers`."""
        find_program("sshd")
        return self._keep(LoopbackHost(name, self._folder(name), self.client_key))

    def pi(self, name: str = "pi", with_runtimes: bool = True, disk_mb: int = 512) -> Pi:
        """Return an emulated Raspberry Pi; its Python has the tests' runtimes, or none."""
        return self._keep(Pi(self._network, name, self._folder(name), self.client_key, with_runtimes, disk_mb))

    def phone(self, name: str = "phone", with_runtimes: bool = True, disk_mb: int = 256) -> Phone:
        """Return a phone whose adbd lets everybody in; its Python has the tests' runtimes, or none."""
        return self._keep(Phone(self._network, name, self._folder(name), with_runtimes, disk_mb))

    def adb_client(self, name: str = "adb-client") -> AdbClient:
        """Return a computer with Debian's adb, as an independent check of what a phone does."""
        return self._keep(AdbClient(self._network, name, self._folder(name)))

    def auth_gate(self, phone: Phone | None = None) -> AuthGate:
        """Return a gate that asks for an authorised key. Without a phone behind it, it needs no root."""
        return self._keep(AuthGate(self._network.gateway if phone else "127.0.0.1", phone))

    def close(self, peer: _Peer) -> None:
        peer.close()
        self._made.remove(peer)

    def close_all(self) -> None:
        while self._made:
            self._made.pop().close()

    @cached_property
    def _network(self) -> Network:
        require_namespaces()
        network = Network()
        self._made.insert(0, network)
        return network

    def _folder(self, name: str) -> Path:
        return self._factory.mktemp(name)

    def _keep(self, peer: P) -> P:
        self._made.append(peer)
        return peer


@pytest.fixture(scope="session")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    made = Peers(tmp_path_factory)
    yield made
    made.close_all()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQLServer]:
    """A PostgreSQL server that all tests share; each makes a database of its own."""
    server = PostgreSQLServer()
    yield server
    server.close()


@pytest.fixture
def linux_host(peers: Peers) -> Iterator[LinuxHost]:
    """A host that the test may do anything to."""
    host = peers.linux_host()
    yield host
    peers.close(host)


@pytest.fixture
def pi(peers: Peers) -> Iterator[Pi]:
    """A Raspberry Pi, with runtimes, that the test may do anything to."""
    made = peers.pi()
    yield made
    peers.close(made)


@pytest.fixture
def phone(peers: Peers) -> Iterator[Phone]:
    """A phone, with runtimes, that the test may do anything to."""
    made = peers.phone()
    yield made
    peers.close(made)


@pytest.fixture
def loopback_host(peers: Peers) -> Iterator[LoopbackHost]:
    host = peers.loopback_host()
    yield host
    peers.close(host)
