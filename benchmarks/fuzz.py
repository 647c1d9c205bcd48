"""Fuzzing: 100,000 damaged cases of everything that latlab reads and did not write itself; none may do harm.

    python benchmarks/fuzz.py --cases 100000
    python benchmarks/fuzz.py --cases 2000 --only "known_hosts files" --seed 7

The cases are of the same kinds as in tests/fuzz, whose test tries 2,000. The script ends with status 1 if a case fails.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import time
import traceback
from pathlib import Path

from common import RESULTS, save, show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fuzz.cases import FUZZERS, cases_of
from fuzz.core import Fuzzer, HangError, run

BATCH = 2500
"""Cases of one run of hypothesis, which remembers all that it has tried."""


def fuzz(fuzzer: Fuzzer, cases: int, seed: int) -> dict[str, object]:
    """Run the cases and return a row: what was tried, the seconds that it took, and the batches that failed."""
    start, failures = time.perf_counter(), 0
    for number, first in enumerate(range(0, cases, BATCH)):
        try:
            run(fuzzer, min(BATCH, cases - first), seed * 10_000 + number)
        except (Exception, HangError):
            failures += 1
            print(f"\n{fuzzer.name}, seed {seed}, batch {number}:", file=sys.stderr)
            traceback.print_exc()
    seconds = time.perf_counter() - start
    return {
        "target": fuzzer.name,
        "cases": cases,
        "seconds": seconds,
        "cases_per_s": cases / seconds,
        "failures": failures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[fuzzer.name for fuzzer in FUZZERS], help="give all cases to this one")
    parser.add_argument("--out", type=Path, default=RESULTS / "fuzz.json")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    rows = []
    for fuzzer in FUZZERS:
        if options.only in (None, fuzzer.name):
            cases = options.cases if options.only else cases_of(fuzzer, options.cases)
            rows.append(fuzz(fuzzer, cases, options.seed))
            show(f"{fuzzer.name}, seed {options.seed}", rows[-1:])
    seconds = sum(float(str(row["seconds"])) for row in rows)
    total = sum(int(str(row["cases"])) for row in rows)
    failures = sum(int(str(row["failures"])) for row in rows)
    rows.append(
        {"target": "all", "cases": total, "seconds": seconds, "cases_per_s": total / seconds, "failures": failures}
    )
    show("fuzzing", rows)
    if not options.only:
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        save(options.out, {"targets": rows, "seed": options.seed, "peak_mb": peak_mb})
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
