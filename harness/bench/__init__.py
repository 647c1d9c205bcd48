"""The bench: all predictors on the same tasks under the same protocols, next to published results.

`tables` reads latencies, `tasks` defines which devices are sources and which are targets, `protocols` defines which
measurements a predictor gets and what it is scored on, `selection` chooses the measurements without seeing other
latencies, `evaluate` scores one predictor with one seed, `run` evaluates all of them, and `results` stores finished
records. `ceilings` estimates the best possible scores, `published` holds those of papers, and `bisection` makes tasks
from any table.
"""

from __future__ import annotations
