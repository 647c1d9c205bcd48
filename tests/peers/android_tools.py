"""The commands of Android that latlab uses on phones, as scripts for mksh.

They keep their settings in files under /data/system, where tests can read them; a reboot keeps them, as on a phone.
"""

from __future__ import annotations

from pathlib import Path

PROPERTIES = {
    "ro.build.fingerprint": "latlab/test_phone/test_phone:14/TEST.0001/1:user/release-keys",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.hardware": "testboard",
    "ro.product.cpu.abi": "x86_64",
    "ro.product.cpu.abilist": "x86_64",
    "ro.product.manufacturer": "latlab",
    "ro.product.model": "Test Phone",
    "ro.serialno": "TEST0001",
    "sys.boot_completed": "1",
}
_APPLETS = """
    cat chmod chown cmp cp cut date dd df du echo env expr false find free grep head id kill ln ls md5sum
    mkdir mktemp mv nproc pgrep pidof printf ps readlink realpath rm rmdir sed seq setsid sha256sum sleep sort
    stat sync tail taskset tee test timeout top touch tr true truncate uname uptime wc which xargs
"""
"""The commands of busybox, which stands in for toybox."""

GETPROP = """
while IFS= read -r line; do
    case $#,$line in
    0,*) echo "[${line%%=*}]: [${line#*=}]";;
    *,"$1="*) echo "${line#*=}"; exit;;
    esac
done </system/build.prop
[ $# -eq 0 ] || echo "$2"
"""

SETTINGS = """
verb=$1 file=/data/system/settings/$2/$3
case $verb in
get) if [ -e "$file" ]; then cat "$file"; else echo null; fi;;
put) mkdir -p "${file%/*}"; echo "$4" >"$file";;
delete) if [ -e "$file" ]; then rm "$file"; echo "Deleted 1 rows"; else echo "Deleted 0 rows"; fi;;
*) echo "Invalid command: $verb" >&2; exit 255;;
esac
"""

SVC = """
[ "$1 $2" = "power stayon" ] || { echo "Unknown command: $*" >&2; exit 1; }
case $3 in true) value=15;; false) value=0;; ac) value=1;; usb) value=2;; wireless) value=4;; *) exit 1;; esac
exec /system/bin/settings put global stay_on_while_plugged_in $value
"""

INPUT = """
[ "$1" = keyevent ] || { echo "Unknown command: $*" >&2; exit 1; }
state=/data/system/wakefulness
case $2 in
KEYCODE_WAKEUP|224) echo Awake >$state;;
KEYCODE_SLEEP|223) echo Asleep >$state;;
KEYCODE_POWER|26) case $(cat $state) in Awake) echo Asleep >$state;; *) echo Awake >$state;; esac;;
esac
"""

DUMPSYS = """
battery=/sys/class/power_supply/battery
case $1 in
power) echo "POWER MANAGER (dumpsys power)"; echo; echo "Power Manager State:"
    echo "  mWakefulness=$(cat /data/system/wakefulness)"
    echo "  mStayOnWhilePluggedInSetting=$(/system/bin/settings get global stay_on_while_plugged_in)";;
battery) echo "Current Battery Service state:"; echo "  AC powered: false"; echo "  USB powered: true"
    echo "  level: $(cat $battery/capacity)"; echo "  scale: 100"; echo "  temperature: $(cat $battery/temp)";;
*) echo "Can't find service: $1";;
esac
"""


def install(root: Path) -> None:
    """Write the commands, and the state of an idle phone: its screen is off."""
    binaries = root / "system/bin"
    binaries.mkdir(parents=True)
    (binaries / "sh").symlink_to("/usr/bin/mksh")
    for name in _APPLETS.split():
        (binaries / name).symlink_to("/usr/bin/busybox")
    scripts = {"getprop": GETPROP, "settings": SETTINGS, "svc": SVC, "input": INPUT, "dumpsys": DUMPSYS}
    for name, text in scripts.items():
        (binaries / name).write_text(f"#!/system/bin/sh{text}")
        (binaries / name).chmod(0o755)
    (root / "system/build.prop").write_text("".join(f"{key}={value}\n" for key, value in PROPERTIES.items()))
    settings = root / "data/system/settings/global"
    settings.mkdir(parents=True)
    (settings / "stay_on_while_plugged_in").write_text("0\n")
    (settings / "screen_off_timeout").write_text("60000\n")
    (root / "data/system/wakefulness").write_text("Asleep\n")
    for path in (root / "data/system", *(root / "data/system").rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
