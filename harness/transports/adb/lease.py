"""The lease of a phone without Python: the same lock and tokens as those of `latlab.agents.workspace.lease`.

A keeper holds the lock: a shell on the device that only waits for the controller's next line. It ends when the
connection does, when the controller is gone, and when no line came for too long. First it ends the program that this
controller was running, then the system frees the lock.
Where the device has no `flock`, a keeper that still runs counts as the holder, and the token decides in the end.
"""

from __future__ import annotations

import json
import re
import shlex

from latlab.agents.protocol.errors import AgentError
from latlab.agents.workspace.lease import in_use
from latlab.harness.transports.adb.phone import Phone
from latlab.harness.transports.adb.services import Event, ShellProcess
from latlab.harness.transports.base import ChannelClosedError, ChannelTimeoutError, Deadline

__all__ = ["PhoneLease"]

KEEP_S = 15.0
"""Seconds for the keeper to start."""
MARK = "latlab-keeper"
LOST = 93
"""The exit status of a guarded command that did not run, because another controller has the device now."""
_KEEPER = """
: {mark}
trap '' HUP # adbd sends it when the controller is gone; there is something left to do then
end_program() {{
  [ ! -f run ] || {{ read -r pid <run; grep -qs benchmark_model /proc/$pid/cmdline && kill -9 $pid; }}
}}
cd {work} && mkdir -p lease || exit 1
exec 9>>lock || exit 1
flock -n 8 8>&9 2>/dev/null
case $? in
0) ;;
1) echo {mark} busy $(cat lock); exit ;;
*) # there is none
  read -r line <lock; pid=${{line#*\\"pid\\": }}; pid=${{pid%%[!0-9]*}}
  [ -z "$pid" ] || ! grep -qs latlab /proc/$pid/cmdline || {{ echo {mark} busy $line; exit; }} ;;
esac
end_program
last=0
for n in $(ls lease); do case $n in *[!0-9]*) ;; *) [ $n -gt $last ] && last=$n ;; esac; done
token=$((last + 1)); until mkdir lease/$token; do token=$((token + 1)); [ $token -gt $((last + 99)) ] && exit 1; done
for name in lease/*; do [ $name = lease/$token ] || rmdir $name; done
since=$(date +%s)
echo "{{\\"pid\\": $$, \\"owner\\": {owner}, \\"token\\": $token, \\"who\\": {who}, \\"since\\": ${{since:-0}}}}" >lock
[ -s folder ] || {{ echo {folder} >folder.$$ && mv folder.$$ folder; }}
echo {mark} held $$ $token $(cat folder)
wait={idle}
while read -r -t $wait wait; do :; done
[ ! -d lease/$token ] || end_program # unless a later keeper has the device
"""
_HELD = re.compile(r"([0-9]{1,9}) ([0-9]{1,15}) ([0-9a-f]{16})")


class PhoneLease:
    """The right to use the phone, for as long as its keeper runs.

    Args:
        phone: the phone, connected.
        work: the work folder on it.
        owner: 32 hex digits that identify the controller's run, whose earlier keepers are ended; or None.
        who: text of the form `WHO` that names the user to others who find the phone in use; or None.
        idle_s: seconds after which the keeper ends if `stay` was not called.
        folder: an id for the work folder, 16 hex digits; used if it has none yet.

    Raises:
        AgentError: "busy": another controller has the phone; "no_space" or "bad_request": the folder cannot be used.
    """

    def __init__(self, phone: Phone, work: str, owner: str | None, who: str | None, idle_s: float, folder: str) -> None:
        self._work, self._idle_s = shlex.quote(work), idle_s
        names = ("null" if name is None else f'\\"{name}\\"' for name in (owner, who))
        self._script = _KEEPER.format(
            mark=MARK,
            work=self._work,
            **dict(zip(("owner", "who"), names, strict=True)),
            idle=round(idle_s) or 1,
            folder=folder,
        )
        self._process: ShellProcess | None = None
        for attempt in range(2):
            kind, _, rest = self._start(phone).partition(" ")
            if kind == "held" and (held := _HELD.fullmatch(rest)):
                self.pid, self.token, self.folder = int(held[1]), int(held[2]), held[3]
                return
            found = _parse_holder(rest)
            if kind == "busy" and not attempt and owner is not None and found.get("owner") == owner:
                phone.shell(
                    f"p={found['pid']}; grep -qs latlab /proc/$p/cmdline && kill -9 $p; "
                    "n=0; while [ -e /proc/$p ] && [ $n -lt 20 ]; do sleep 0.1; n=$((n + 1)); done"
                )
                continue
            raise AgentError("busy", f"{work} is {in_use(found)}")

    def guard(self, command: str) -> str:
        """Return the command wrapped so that it runs only with the newest token; a later keeper kills it."""
        return f"cd {self._work} && [ -d lease/{self.token} ] || exit {LOST}\necho $$ >run\n{command}"

    def check(self, status: int | None) -> None:
        """Check the exit status of a guarded command.

        Raises:
            AgentError: "lease_lost": the command did not run, because the token is not the newest.
        """
        if status == LOST:
            raise AgentError("lease_lost", f"another controller has taken the device over (this token: {self.token})")

    def stay(self, seconds: float) -> None:
        """Have the keeper wait for the next line for `seconds` and `idle_s` from now on.

        Raises:
            ChannelClosedError: the keeper is gone.
        """
        process = self._process
        assert process is not None
        deadline = Deadline(KEEP_S)
        process.write(b"%d\n" % round(seconds + self._idle_s + 1), deadline)
        if process.has_ended():
            raise ChannelClosedError("was ended on the device (its keeper process is gone)")

    def release(self, deadline: Deadline) -> None:
        """End the keeper, which frees the lock."""
        if self._process is not None and not self._process.ended:
            self._process.close(deadline)

    def _start(self, phone: Phone) -> str:
        """Start the keeper and return the rest of its first line: "held PID TOKEN FOLDER" or "busy LOCK".

        Raises:
            AgentError: "no_space" or "bad_request": the work folder cannot be used.
        """
        assert phone.connection is not None
        deadline = Deadline(KEEP_S)
        self._process = process = ShellProcess(phone.connection, self._script, deadline)
        said, errors = b"", b""
        while True:
            event, data = process.read(deadline)
            if event is Event.STDOUT:
                said += data
                _, found, rest = said.partition(f"{MARK} ".encode())
                if found and b"\n" in rest:
                    return rest.partition(b"\n")[0].decode("ascii", "replace")
            elif event is Event.STDERR:
                errors += data
            if event is Event.EXIT or len(said) + len(errors) > 1 << 16:
                words = errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
                full = "No space left" in words
                raise AgentError("no_space" if full else "bad_request", f"cannot use the work folder: {words[:500]}")
            if not deadline.left:
                raise ChannelTimeoutError


def _parse_holder(text: str) -> dict[str, object]:
    """Return the fields of the lock file, or none where they make no sense."""
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    good = isinstance(holder, dict) and type(holder.get("pid")) is int and 1 < holder["pid"] < 1 << 31
    return holder if good else {}
