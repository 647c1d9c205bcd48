"""The layer below the ADB protocol: adb-shell's TCP and USB transports, with deadlines that hold.

adb-shell 0.4.4 takes a short write for a whole one (pushes of 200 kB hang), leaves Nagle's algorithm on (a round trip
of 2 ms takes 44), does not notice that the other end has closed, and throws half a message away on a timeout.
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

_MIN_TIMEOUT_S = 0.001
"""A socket with a timeout of 0 does not block at all and raises other errors."""
_USB_PACKET = 512


class MendedTcpTransport(TcpTransport):  # type: ignore[misc]
    """A TCP connection that writes all data without delay and notices when the device is gone.

    Args:
        host: address of the device.
        port: adbd's port.
        patience_s: seconds without a sign of life after which the connection counts as lost.
    """

    def __init__(self, host: str, port: int, patience_s: float) -> None:
        super().__init__(host, port)
        self._patience_s = patience_s

    def connect(self, transport_timeout_s: float) -> None:
        """Connect, and have the kernel watch the connection."""
        super().connect(transport_timeout_s)
        options = [(socket.SOL_SOCKET, "SO_KEEPALIVE", 1), (socket.IPPROTO_TCP, "TCP_NODELAY", 1)]
        # A probe each second while nothing is sent. TCP_USER_TIMEOUT counts from the last sign of life and is checked
        # when a probe is due, so it is set a little below `patience_s`.
        options += [(socket.IPPROTO_TCP, name, 1) for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL")]
        options.append((socket.IPPROTO_TCP, "TCP_KEEPCNT", max(1, round(self._patience_s))))
        options.append((socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", max(1, round(self._patience_s * 1000) - 200)))
        for level, name, value in options:
            if hasattr(socket, name):  # macOS lacks some of them
                self._connection.setsockopt(level, getattr(socket, name), value)

    def close(self) -> None:
        """Close the connection; a thread that is reading from it or writing to it then gets an error."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()

    def bulk_read(self, numbytes: int, transport_timeout_s: float) -> bytes:
        """Return up to `numbytes` bytes; raise `TcpTimeoutException` or `OSError`."""
        self._connection.settimeout(max(transport_timeout_s, _MIN_TIMEOUT_S))
        try:
            data: bytes = self._connection.recv(numbytes)
        except TimeoutError as error:
            if error.errno == errno.ETIMEDOUT:  # from the kernel: the connection is gone
                raise
            raise TcpTimeoutException("nothing came") from None
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "adbd closed the connection")
        return data

    def bulk_write(self, data: bytes | memoryview, transport_timeout_s: float) -> int:
        """Write all of `data`; raise `TcpTimeoutException` or `OSError`."""
        self._connection.settimeout(max(transport_timeout_s, _MIN_TIMEOUT_S))
        try:
            self._connection.sendall(data)
        except TimeoutError as error:
            if error.errno == errno.ETIMEDOUT:
                raise
            raise TcpTimeoutException("it takes no more") from None
        return len(data)


class Link:
    """Reads and writes of exact sizes. The bytes of a read that timed out are kept for the next one.

    Args:
        transport: an adb-shell transport, connected.
        usb: the transport is USB, which preserves the boundaries of packets.
    """

    def __init__(self, transport: BaseTransport, *, usb: bool) -> None:
        self._transport = transport
        self._usb = usb
        self._got = bytearray()
        self.lost = False
        """True if the link cannot be used: the connection is gone, or a message was sent in part."""

    def read(self, size: int, deadline: Deadline) -> bytes:
        """Return exactly `size` bytes.

        Raises:
            ChannelTimeoutError: they did not all arrive before the deadline.
            ChannelLostError: the connection is gone.
        """
        while len(self._got) < size:
            self._got += self._guarded(self._transport.bulk_read, size - len(self._got), deadline)
        data = bytes(self._got[:size])
        del self._got[:size]
        return data

    def write(self, header: bytes, payload: bytes | memoryview, deadline: Deadline) -> None:
        """Send a message.

        Raises:
            ChannelTimeoutError: it could not all be sent before the deadline; the link cannot be used after that.
            ChannelLostError: the connection is gone.
        """
        parts = [header, payload] if self._usb or len(payload) > 1 << 16 else [b"".join((header, payload))]
        try:
            for part in parts:
                if len(part):
                    self._guarded(self._transport.bulk_write, part, deadline)
        except ChannelTimeoutError:
            self.lost = True
            raise

    def piece(self, data: memoryview, most: int) -> memoryview:
        """Return as much of `data` as fits into a message of `most` bytes.

        Over USB one byte less, where it fills packets exactly: the transfer would not end without an empty packet.
        """
        size = min(len(data), most)
        return data[: size - 1 if self._usb and size % _USB_PACKET == 0 and size > 1 else size]

    def close(self) -> None:
        """Close the connection; any thread may do so."""
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
            raise self._mark_lost(f"USB: {error.usb_error}") from error
        except UsbWriteFailedError as error:
            if _is_timeout(error.__context__):
                raise ChannelTimeoutError from None
            raise self._mark_lost(f"USB: {error.__context__ or error}") from error
        except OSError as error:
            silent = error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
            words = "no sign of life from it: the link is cut, or it is off" if silent else error.strerror or str(error)
            raise self._mark_lost(words) from error

    def _mark_lost(self, words: str) -> ChannelLostError:
        self.lost = True
        return ChannelLostError(f"the connection to adbd is gone ({words})")


def open_tcp(host: str, port: int, patience_s: float) -> Link:
    """Connect to adbd over TCP.

    Args:
        host: address of the device.
        port: adbd's port.
        patience_s: seconds without a sign of life after which the connection counts as lost.

    Raises:
        OSError: no connection within `patience_s`.
    """
    transport = MendedTcpTransport(host, port, patience_s)
    transport.connect(patience_s)
    return Link(transport, usb=False)


def open_usb(serial: str) -> Link:
    """Connect to the device with this serial number over USB.

    Raises:
        OSError: that is impossible; the message says what to do.
    """
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
    return type(error).__name__ == "USBErrorTimeout"  # by name, because usb1 need not be installed
