"""The base class of both transports to a phone, with Python on it and without."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.adb.phone import Phone, WorkFolder
from latlab.harness.transports.base import ChannelLostError, ChannelTimeoutError, Transport

__all__ = ["PhoneTransport"]


class PhoneTransport(Transport):
    """A transport over adb. The phone is kept awake from the first `hello` that succeeds.

    Args:
        name: the device, for messages.
        config: its entry in the inventory.
    """

    def __init__(self, name: str, config: ADBDevice) -> None:
        super().__init__(name)
        self._phone = Phone(name, config)
        self._folder: WorkFolder | None = None

    def request(self, verb: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
        reply = super().request(verb, timeout_s, **fields)
        if verb == "hello" and self._folder:
            # Not earlier: while another controller uses the phone, its settings must not be touched.
            with suppress(ChannelLostError), self._phone.in_use:  # the next request reports the loss
                self._phone.stay_awake(self._folder.path)
        return reply

    def _transfer(self, path: Path, sha256: str) -> None:
        assert self._folder is not None
        with self._phone.in_use:
            try:
                self._phone.push(path, f"{self._folder.path}/incoming/{sha256}")
            except ChannelTimeoutError:
                raise ChannelLostError("it does not answer") from None
