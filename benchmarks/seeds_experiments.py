"""The experiments of the papers that latlab started from, in one command.

    python benchmarks/seeds_experiments.py --data FOLDER [--only figure6 table4 table5 table6 note10] [--seeds 5]
        [--predictors roost help nasflat ...]

FOLDER has the published tables. `figure6`: Pareto fronts of NAS-Bench-201 with oracle accuracies, regret and
hypervolume on each unseen device. `table4`, `table5`, `table6`: HELP's tables of searches under limits, on MetaD2A's
candidates, OFA and HAT. `note10`: OFA's five limits on the Galaxy Note 10, for OFA and CompOFA. It prints the tables
and writes `results/seeds_experiments.json`; experiments that are not run keep their figures there. Pre-trained
predictors are kept in `--kept`: NASFLAT and HELP take minutes for each task.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from latlab.harness.distributed.local import one_thread

one_thread()
from common import RESULTS, save, show  # noqa: E402
from seeds.figure6 import figure6  # noqa: E402
from seeds.methods import PREDICTORS, Options  # noqa: E402
from seeds.note10 import note10  # noqa: E402
from seeds.tables import table4, table5, table6  # noqa: E402

EXPERIMENTS: Mapping[str, tuple[str, Callable[[Options], list[dict[str, Any]]]]] = {
    "figure6": ("HELP, Figure 6: predicted Pareto fronts of NAS-Bench-201, oracle accuracies", figure6),
    "table4": ("HELP, Table 4 and C.1: MetaD2A's candidates, 10 samples", table4),
    "table5": ("HELP, Table 5: OFA on the Titan RTX, batch 64, 10 samples", table5),
    "table6": ("HELP, Table 6's layout: HAT's decoders, millions of parameters for BLEU, 10 samples", table6),
    "note10": ("OFA's limits on the Note 10: OFA and CompOFA", note10),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--predictors", nargs="+", default=list(PREDICTORS), metavar="NAME")
    parser.add_argument("--kept", type=Path, default=Path("latlab-out/pretrained"))
    parser.add_argument("--out", type=Path, default=RESULTS / "seeds_experiments.json")
    arguments = parser.parse_args()
    options = Options(arguments.data, arguments.seeds, Options.installed(arguments.predictors), arguments.kept)
    figures = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name in arguments.only:
        title, experiment = EXPERIMENTS[name]
        rows = experiment(options)
        show(title, rows)
        figures[name] = rows
        save(arguments.out, figures)


if __name__ == "__main__":
    main()
