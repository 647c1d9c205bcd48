"""An Android device over adb: the login, the work folder, files, and how it is kept awake."""

from __future__ import annotations

import errno
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from latlab.harness.text import printable
from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.adb.connection import ADBConnection, KeyRefusedError, Signer, TLSWantedError
from latlab.harness.transports.adb.link import Link, open_tcp, open_usb
from latlab.harness.transports.adb.services import CompletedCommand, push, run
from latlab.harness.transports.base import ChannelLostError, ChannelTimeoutError, ConnectError, Deadline

__all__ = ["Phone", "WorkFolder"]

SHELL_S = 15.0
"""Seconds for a trivial command: a phone that has just woken up is slow."""
SETTINGS_S = 10.0
"""Seconds for `settings` and `input`, each of which starts a Java virtual machine."""
HASHED_BYTES_PER_S = 10e6
"""Bytes per second that the slowest phone hashes."""
WORK_FOLDERS = (
    "/data/local/tmp/latlab",
    "/sdcard/latlab",
    "/data/data/com.termux/files/home/.cache/latlab",
)
"""Default work folders, in the order in which they are tried: some vendors refuse the first, which is adb's own."""
_PROBE = """
d={folder}
mkdir -p "$d/incoming" "$d/models" && cd "$d" || exit 1
printf '#!/system/bin/sh\\nexit 0\\n' >.probe.$$ && chmod 755 .probe.$$ || {{ rm -f .probe.$$; exit 1; }}
./.probe.$$ 2>/dev/null && echo runs || echo only-holds
rm -f .probe.$$
stat -f -c '%a %b %S' . 2>/dev/null || echo
"""
_STAY_AWAKE = """
cd {work} || exit 0
input keyevent KEYCODE_WAKEUP >/dev/null 2>&1
command -v settings >/dev/null || exit 0
old=$(settings get global stay_on_while_plugged_in)
[ -f awake ] && read -r _ old <awake
echo "{token} $old" >awake && settings put global stay_on_while_plugged_in 15
"""
_RESTORE_SLEEP = """
cd {work} && read -r token old <awake && [ "$token" = {token} ] || exit 0
case $old in
'' | *[!0-9]*) settings delete global stay_on_while_plugged_in ;;
*) settings put global stay_on_while_plugged_in "$old" ;;
esac >/dev/null && rm -f awake
"""


@dataclass(frozen=True)
class WorkFolder:
    """The folder on the device for programs and model files."""

    path: str
    runs_programs: bool
    """True if programs can be started from it, unlike from a memory card."""
    free_bytes: int | None
    total_bytes: int | None


class Phone:
    """A device. Every method but `connect` raises `ChannelLostError` and `ChannelTimeoutError`.

    Args:
        name: the device, for messages.
        config: its entry in the inventory.
    """

    def __init__(self, name: str, config: ADBDevice) -> None:
        self.name = name
        self._config = config
        self._token = secrets.token_hex(8)
        self._awake = False
        self.connection: ADBConnection | None = None
        self.in_use = Lock()
        """Held while a thread uses the connection, so that another one that closes it does not interfere."""

    @contextmanager
    def ending(self) -> Iterator[bool]:
        """Enter the end of a session: True if this thread has the phone to itself.

        False if another thread is using the phone; the connection was then closed under it.
        """
        if not self.in_use.acquire(blocking=False):
            if self.connection is not None:
                self.connection.close()
            yield False
            return
        try:
            yield True
        finally:
            self.in_use.release()

    def connect(self) -> None:
        """Connect to adbd and log in.

        Raises:
            ConnectError: at the steps "connection" and "login".
        """
        self.connection = connection = ADBConnection(self._link())
        try:
            connection.log_in(self._signer, Deadline(self._config.patience_s))
        except (ChannelTimeoutError, ChannelLostError) as error:
            connection.close()
            words = str(error) or f"adbd does not answer within {self._config.patience_s:g} s"
            raise ConnectError(f"device {self.name}: {words}", step="connection", advice=_HOW_TO_REACH) from None
        except KeyRefusedError:
            connection.close()
            raise self._refused(
                "it does not know your adb key, and nobody allowed it there",
                "Unlock the phone, try again, and confirm the dialog on the phone ('Always allow from this computer').",
            ) from None
        except TLSWantedError:
            connection.close()
            raise self._refused(
                "that port is for wireless debugging with a pairing, which is not supported",
                "Connect it by cable, run `adb tcpip 5555`, and use port 5555 (or the cable itself, with `serial`).",
            ) from None
        except BaseException:
            connection.close()
            raise

    def find_work_folder(self, *, running: bool) -> WorkFolder:
        """Return the first work folder that can be written.

        Args:
            running: programs must be able to start from it.

        Raises:
            ConnectError: at the step "work folder": there is none.
        """
        candidates = [self._config.work] if self._config.work else WORK_FOLDERS
        refusals = []
        for candidate in candidates:
            ran = self.shell(_PROBE.format(folder=shlex.quote(candidate)))
            lines = ran.output.decode("utf-8", "replace").split("\n")
            if ran.status == 0 and len(lines) > 1:
                numbers = [int(word) for word in lines[1].split() if word.isdigit()]
                free, total = (numbers[0] * numbers[2], numbers[1] * numbers[2]) if len(numbers) == 3 else (None, None)
                folder = WorkFolder(candidate, lines[0] == "runs", free, total)
                if folder.runs_programs or not running:
                    return folder
                refusals.append(f"{candidate}: programs cannot be started from there")
            else:
                said = printable((ran.errors or ran.output).decode("utf-8", "replace").strip().rpartition("\n")[2])
                refusals.append(f"{candidate}: {said or 'it cannot be written'}")
        full = any("No space left" in refusal for refusal in refusals)
        raise ConnectError(
            f"device {self.name}: no work folder can be used ({'; '.join(refusals)})",
            step="work folder",
            advice="Free some space on it." if full else "Name a folder that can be written with `work`.",
            lasting=True,
        )

    def shell(self, command: str, timeout_s: float = SHELL_S) -> CompletedCommand:
        """Run a shell command to its end."""
        return run(self._connected(), command, timeout_s)

    def push(self, path: Path, remote: str) -> None:
        """Copy a file to the device.

        adbd removes a file that it could not write to its end. Where it fails to, a part is left behind, and callers
        notice it by size and hash. A copy to another name that is renamed at the end would cost as much time as a
        file of some hundred kilobytes takes.

        Raises:
            OSError: the device refuses the file.
        """
        connection = self._connected()
        try:
            with path.open("rb", buffering=0) as file:
                push(connection, file, remote)
        except OSError:
            if not connection.lost:
                self.shell(f"rm -f {shlex.quote(remote)}")
            raise

    def sha256(self, remote: str, size: int) -> str | None:
        """Return the hash of a file on the device as 64 hexadecimal digits, or None where there is no such file.

        Args:
            remote: the path on the device.
            size: its size in bytes, which the deadline depends on.

        Raises:
            OSError: the device cannot compute it.
        """
        quoted = shlex.quote(remote)
        ran = self.shell(f"[ -f {quoted} ] || exit 3; sha256sum {quoted}", SHELL_S + size / HASHED_BYTES_PER_S)
        if ran.status == 3:
            return None
        digest = ran.output.split()[0].decode("ascii", "replace").lstrip("\\") if ran.output.split() else ""
        if ran.status != 0 or len(digest) != 64:
            raise OSError(errno.ENOSYS, f"no sha256sum there: {printable(ran.errors.decode('utf-8', 'replace'))}")
        return digest

    def bring(self, path: Path, remote: str, sha256: str) -> None:
        """Make sure that `remote` is a copy of the file with this hash, and executable.

        Raises:
            OSError: the device refuses the file, or it arrived damaged.
        """
        size = path.stat().st_size
        if self.sha256(remote, size) != sha256:
            self.push(path, remote)
            if self.sha256(remote, size) != sha256:
                raise OSError(errno.EIO, f"{path.name} did not arrive whole")
        self.shell(f"chmod 755 {shlex.quote(remote)}")

    def stay_awake(self, work: str) -> None:
        """Wake the phone and keep it awake while it is plugged in; a file in the work folder records the old setting.

        If there is such a file, another controller could not restore the setting: the value recorded in it is kept.
        """
        self._awake = True
        with suppress(ChannelTimeoutError):
            self.shell(_STAY_AWAKE.format(work=shlex.quote(work), token=self._token), SETTINGS_S)

    def disconnect(self, work: str | None) -> None:
        """Restore the setting that `stay_awake` changed, unless another controller changed it since, and hang up."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        try:
            if self._awake and work is not None and not connection.lost:
                with suppress(ChannelTimeoutError, ChannelLostError):
                    run(connection, _RESTORE_SLEEP.format(work=shlex.quote(work), token=self._token), SETTINGS_S)
        finally:
            self._awake = False
            connection.close()

    def _connected(self) -> ADBConnection:
        if self.connection is None:  # closed by another thread
            raise ChannelLostError("the connection to it was closed")
        return self.connection

    def _link(self) -> Link:
        config = self._config
        try:
            if config.host is not None:
                return open_tcp(config.host, config.port, config.patience_s)
            assert config.serial is not None
            return open_usb(config.serial)
        except OSError as error:
            where = f"{config.host}:{config.port}" if config.host else "USB"
            words = "it does not answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
            raise ConnectError(
                f"device {self.name}: no connection to adbd at {where}: {words}",
                step="connection",
                advice=_HOW_TO_REACH if config.host else "",
            ) from error

    def _signer(self) -> Signer:
        # Imported here, because it loads a library for cryptography that is not needed for devices without keys.
        from adb_shell.auth.keygen import encode_pubkey, get_user_info
        from adb_shell.auth.sign_pythonrsa import PythonRSASigner

        path = self._config.key or Path.home() / ".android" / "adbkey"
        public = Path(f"{path}.pub")
        try:
            private = path.read_text()
            if public.is_file():
                words = public.read_bytes().strip()
            else:
                from base64 import b64encode

                words = b64encode(encode_pubkey(str(path))) + get_user_info().encode()
            return Signer(PythonRSASigner(None, private).Sign, words)
        except OSError as error:
            raise self._refused(
                f"it wants to know your adb key, but {path} cannot be read: {error.strerror}",
                f"Make one with `adb keygen {path}`, or name yours with `key`.",
            ) from None
        except Exception as error:  # pyasn1, rsa and cryptography each raise their own
            raise self._refused(
                f"{path} is no adb key ({type(error).__name__})", f"Make one with `adb keygen {path}`."
            ) from None

    def _refused(self, words: str, advice: str) -> ConnectError:
        return ConnectError(f"device {self.name}: {words}", step="login", advice=advice, lasting=True)


_HOW_TO_REACH = (
    "Is it on, in this network, and debugging over TCP on? After each reboot of the phone: connect it by cable and run "
    "`adb tcpip 5555`."
)
