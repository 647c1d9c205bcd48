"""The bytes below the ADB protocol: adb-shell's TCP and USB transports, with deadlines that hold.

adb-shell 0.4.4 takes a short write for a whole one (pushes of 200 kB hang), leaves Nagle's algorithm on (44 ms
for what takes 2), does not notice that the other end has closed, and throws half a message away on a timeout.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import Any

from adb_shell.exceptions import (
    TcpTimeoutException,
    UsbDeviceNotFoundError,
    UsbReadFailedError,
    UsbWriteFailedError,
)
from adb_shell.transport.base_transport import BaseTransport
from adb_shell.transport.tcp_transport import TcpTransport

from latlab.harness.transports.base import ChannelLostError, ChannelTimeoutError, Deadline

__all__ = ["Link", "MendedTcpTransport", "open_tcp", "open_usb"]

_LEAST_S = 0.001
"""A timeout of 0 means another thing to sockets."""
_USB_PACKET = 512


class MendedTcpTransport(TcpTransport):  # type: ignore[misc]
    """A TCP connection that writes all, at once, and notices when nobody is there any more.

    Args:
        patience_s: seconds without a sign of life after which the connection counts as lost.
    """

    def __init__(self, host: str, port: int, patience_s: float) -> None:
        super().__init__(host, port)
        self._patience_s = patience_s

    def connect(self, transport_timeout_s: float) -> None:
        super().connect(transport_timeout_s)
        options = [(socket.SOL_SOCKET, "SO_KEEPALIVE", 1), (socket.IPPROTO_TCP, "TCP_NODELAY", 1)]
        # A probe each second while nothing is said. The patience's own clock starts with the last sign of life,
        # and is looked at when a probe is due, hence a little less than what was asked for.
        options += [(socket.IPPROTO_TCP, name, 1) for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL")]
        options.append((socket.IPPROTO_TCP, "TCP_KEEPCNT", max(1, round(self._patience_s))))
        options.append((socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", max(1, round(self._patience_s * 1000) - 200)))
        for level, name, value in options:
            if hasattr(socket, name):  # macOS lacks some of them
                self._connection.setsockopt(level, getattr(socket, name), value)

    def close(self) -> None:
        """Also from another thread, whose reading or writing then fails."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()

    def bulk_read(self, numbytes: int, transport_timeout_s: float) -> bytes:
        self._connection.settimeout(max(transport_timeout_s, _LEAST_S))
        try:
            data: bytes = self._connection.recv(numbytes)
        except TimeoutError as error:
            if error.errno == errno.ETIMEDOUT:  # the kernel's: the connection is gone
                raise
            raise TcpTimeoutException("nothing came") from None
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "adbd closed the connection")
        return data

    def bulk_write(self, data: bytes | memoryview, transport_timeout_s: float) -> int:
        self._connection.settimeout(max(transport_timeout_s, _LEAST_S))
        try:
            self._connection.sendall(data)
        except TimeoutError as error:
            if error.errno == errno.ETIMEDOUT:
                raise
            raise TcpTimeoutException("it takes no more") from None
        return len(data)


class Link:
    """Reads and writes exactly so many bytes. What a read that timed out has got is there for the next one.

    Args:
        transport: an adb-shell transport, connected.
        usb: whether it is USB, where packets have borders.
    """

    def __init__(self, transport: BaseTransport, *, usb: bool) -> None:
        self._transport = transport
        self._usb = usb
        self._got = bytearray()
        self.lost = False
        """Whether nothing more can be said: the connection is gone, or stands in the middle of a message."""

    def read(self, size: int, deadline: Deadline) -> bytes:
        """Raises `ChannelTimeoutError` or `ChannelLostError`."""
        while len(self._got) < size:
            self._got += self._guarded(self._transport.bulk_read, size - len(self._got), deadline)
        data = bytes(self._got[:size])
        del self._got[:size]
        return data

    def write(self, header: bytes, payload: bytes | memoryview, deadline: Deadline) -> None:
        """A message. Raises `ChannelTimeoutError` or `ChannelLostError`; after both the link is of no more use."""
        parts = [header, payload] if self._usb or len(payload) > 1 << 16 else [b"".join((header, payload))]
        try:
            for part in parts:
                if len(part):
                    self._guarded(self._transport.bulk_write, part, deadline)
        except ChannelTimeoutError:
            self.lost = True
            raise

    def piece(self, data: memoryview, most: int) -> memoryview:
        """How much of `data` fits a message. A whole number of USB packets would want an empty one behind them."""
        size = min(len(data), most)
        return data[: size - 1 if self._usb and size % _USB_PACKET == 0 and size > 1 else size]

    def close(self) -> None:
        self.lost = True
        self._transport.close()

    def _guarded(self, action: Any, what: Any, deadline: Deadline) -> Any:
        if self.lost:
            raise ChannelLostError("the connection is closed")
        try:
            return action(what, deadline.left)
        except TcpTimeoutException:
            raise ChannelTimeoutError from None
        except UsbReadFailedError as error:
            if _is_timeout(error.usb_error):
                self._got += getattr(error.usb_error, "received", b"")
                raise ChannelTimeoutError from None
            raise self._loss(f"USB: {error.usb_error}") from error
        except UsbWriteFailedError as error:
            if _is_timeout(error.__context__):
                raise ChannelTimeoutError from None
            raise self._loss(f"USB: {error.__context__ or error}") from error
        except OSError as error:
            silent = error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
            words = "no sign of life from it: the link is cut, or it is off" if silent else error.strerror or str(error)
            raise self._loss(words) from error

    def _loss(self, words: str) -> ChannelLostError:
        self.lost = True
        return ChannelLostError(f"the connection to adbd is gone ({words})")


def open_tcp(host: str, port: int, patience_s: float) -> Link:
    """Raises `OSError`."""
    transport = MendedTcpTransport(host, port, patience_s)
    transport.connect(patience_s)
    return Link(transport, usb=False)


def open_usb(serial: str) -> Link:
    """Raises `OSError`, with what to do in its message."""
    try:
        import usb1  # type: ignore[import-not-found, unused-ignore]
        from adb_shell.transport.usb_transport import UsbTransport
    except ImportError:
        raise OSError("adb over USB needs the Python package libusb1: pip install 'latlab[usb]'") from None
    except OSError as error:  # the package is there, the library that it wraps is not
        raise OSError(f"adb over USB needs the library libusb 1.0, e.g. apt install libusb-1.0-0: {error}") from None
    try:
        transport = UsbTransport.find_adb(serial=serial)
        transport.connect()
    except UsbDeviceNotFoundError:
        raise OSError(
            f"no Android device with the serial number {serial} is plugged in with USB debugging on"
        ) from None
    except usb1.USBErrorAccess:
        raise OSError("no permission for the USB device: install udev rules (apt install android-udev-rules)") from None
    except usb1.USBErrorBusy:
        raise OSError("another program holds the USB device: stop adb's server with `adb kill-server`") from None
    except usb1.USBError as error:
        raise OSError(f"USB: {error}") from error
    return Link(transport, usb=True)


def _is_timeout(error: BaseException | None) -> bool:
    return type(error).__name__ == "USBErrorTimeout"  # of usb1, which need not be installed
