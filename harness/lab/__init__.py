"""The Python interface of latlab: the same verbs as on the command line.

>>> from latlab.harness import Lab
>>> result = Lab("latlab.db").onboard("local", space="nasbench201", budget=20)  # doctest: +SKIP
>>> result.table.sort_values("latency_ms").head()                               # doctest: +SKIP
"""

from __future__ import annotations

from latlab.harness.lab.arguments import plain_arguments
from latlab.harness.lab.comparing import Comparing
from latlab.harness.lab.encoding import Encoding
from latlab.harness.lab.exporting import Exporting
from latlab.harness.lab.pretraining import Pretraining
from latlab.harness.lab.reporting import Reporting
from latlab.harness.lab.running import RunningOne
from latlab.harness.lab.searching import Searching

__all__ = ["Lab"]


@plain_arguments
class Lab(Comparing, RunningOne, Searching, Reporting, Pretraining, Encoding, Exporting):
    """A store, an inventory and a cache of exported networks, with the verbs that work on them.

    Each verb stands in a module of its subject: `lab.measuring`, `lab.comparing`, `lab.running`, `lab.predicting`,
    `lab.onboarding`, `lab.searching`, `lab.reporting`, `lab.pretraining`,
    `lab.encoding`, `lab.exporting`.

    Args:
        store: file that all measurements go to, or the address of a PostgreSQL database
            (`postgresql+psycopg://user@host/database`); it is created if it does not exist.
        inventory: file that describes the devices; default `inventory.yaml` if it exists. The device `local` always
            exists.
        cache: folder of exported networks; default: one in the user's cache folder.
    """
