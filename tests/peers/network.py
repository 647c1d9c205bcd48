"""A virtual switch with a cable to this machine and one to every peer; each cable can be pulled."""

from __future__ import annotations

import itertools
import random

from .namespaces import Holder, run

_SUBNETS = 512
"""The number of /24 subnets of 198.18.0.0/15, which is set aside for tests (RFC 2544): no real network is hidden."""
_GATEWAY = 1


class Network:
    """A bridge in a network namespace of its own, with one end of a cable in this machine's.

    Test runs at the same time have different subnets: the name of this machine's end claims one.
    """

    def __init__(self) -> None:
        self._switch = Holder(["unshare", "--net"], "ip link add switch type bridge; ip link set switch up")
        for subnet in random.sample(range(_SUBNETS), _SUBNETS):
            self.interface = f"latlab{subnet}"
            self._prefix = f"198.{18 + subnet // 256}.{subnet % 256}"
            cable = f"link add {self.interface} type veth peer name uplink netns {self._switch.pid}"
            if not run("ip", *cable.split(), check=False).returncode:
                break
        else:
            raise RuntimeError("cannot connect this machine with a network of peers")
        self.gateway = f"{self._prefix}.{_GATEWAY}"
        """This machine's address, as the peers reach it."""
        _configure(f"addr add {self.gateway}/24 dev {self.interface}", f"link set {self.interface} up")
        self._at_switch("link set uplink master switch up")
        self._numbers = itertools.count(_GATEWAY + 1)

    def attach(self, pid: int) -> Link:
        """Connect the network namespace of a process: its interface `eth0` gets an address of its own."""
        number = next(self._numbers)
        address, port = f"{self._prefix}.{number}", f"port{number}"
        self._at_switch(f"link add {port} type veth peer name eth0 netns {pid}", f"link set {port} master switch up")
        _configure("link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up", namespace_of=pid)
        return Link(address, port, self._switch.pid)

    def close(self) -> None:
        run("ip", "link", "delete", self.interface, check=False)
        self._switch.kill()

    def _at_switch(self, *commands: str) -> None:
        _configure(*commands, namespace_of=self._switch.pid)


class Link:
    """A cable between a peer and the switch."""

    def __init__(self, address: str, port: str, switch: int) -> None:
        self.address = address
        self._port = port
        self._switch = switch

    def down(self) -> None:
        """Pull the cable: nothing passes in either direction, and no connection is closed."""
        _configure(f"link set {self._port} down", namespace_of=self._switch)

    def up(self) -> None:
        _configure(f"link set {self._port} up", namespace_of=self._switch)

    def remove(self) -> None:
        _configure(f"link delete {self._port}", namespace_of=self._switch)


def _configure(*commands: str, namespace_of: int | None = None) -> None:
    enter = [] if namespace_of is None else ["nsenter", f"--net=/proc/{namespace_of}/ns/net"]
    run(*enter, "ip", "-batch", "-", stdin="\n".join(commands))
