"""A controller that drives devices, predicts and reads stores does without torch: its export processes have it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from latlab.harness import Lab
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.transports.simulated.config import SimulatedDevice

lab = Lab("latlab.db")
lab.inventory = Inventory({"toy": SimulatedDevice.model_validate({"kind": "server"})})
found = lab.measure("toy", space="nasbench201", count=4, policy="quick")
assert list(found.rows["status"]) == ["ok"] * 4, found
assert len(lab.predict("toy", space="nasbench201", archs=list(found.rows["arch"])).table) == 4
lab.quality("toy")
lab.store.table(raw=True)
heavy = sorted({"torch", "matplotlib", "onnx", "tensorflow"} & set(sys.modules))
print("heavy:", *heavy)
"""


def test_measuring_predicting_and_reading_import_no_torch(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("heavy:")[1].split() == []


def test_importing_the_package_is_light(tmp_path: Path) -> None:
    program = "import sys, latlab.harness; print(*sorted({'torch', 'pandas', 'scipy', 'numpy'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert run.stdout.split() == []
