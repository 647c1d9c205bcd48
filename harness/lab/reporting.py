"""Reports on what the store holds, and judgements of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from latlab.harness.active_learning.prediction import stored_target, trained_predictor
from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_options
from latlab.harness.architectures import is_block_space, parse_archs, space_named
from latlab.harness.errors import BadInputError
from latlab.harness.lab.base import LabBase
from latlab.harness.paths import writable_folder
from latlab.harness.store.distributions import with_distributions
from latlab.harness.store.vocabulary import USER_MODEL_SPACE, Role
from latlab.harness.targets import Target

if TYPE_CHECKING:
    from latlab.harness.quality.assessment import Quality

__all__ = ["Reporting"]


class Reporting(LabBase):
    """The verbs that say what the store holds, and how good it is."""

    def report(
        self,
        *,
        target: str | Target | None = None,
        space: str | None = None,
        out: str | Path = "report.html",
        predictor: PredictorOptions | str = PredictorOptions(),
        seed: int = 0,
    ) -> Path:
        """Write the report on a target and a space, from what the store holds of them, and return its path.

        It shows all measurements. The predictor is fitted to those that are not hold-out.

        Args:
            target: as for `predict`; None for the only one in the store.
            space: name of the search space; None for the only one.
            out: file to write.
            predictor, seed: as for `predict`.

        Raises:
            BadInputError: if several targets or spaces could be meant, there are none, or the file cannot be written.
        """
        from latlab.harness.report.build import store_report  # matplotlib is heavy

        target = None if target is None else stored_target(self.store, str(target))
        table = self.store.table(target=target, space=space, raw=True, provisional=True)
        rows = with_distributions(self.store, table)
        if space is None:
            rows = rows[~rows["space"].map(is_block_space).astype(bool)]
        if len(_pairs(rows)) != 1:
            known = "\n".join(f"  --target {t} --space {s}" for t, s in self.store.labelled()) or "  nothing yet"
            raise BadInputError(f"say which of these the report is about, the store {self.store.path} has:\n{known}")
        path = Path(out)
        writable_folder(path.parent)
        target, space = _pairs(rows)[0]
        sources: tuple[str, ...] = ()
        fitted = None
        if space != USER_MODEL_SPACE:
            chosen_space = space_named(space)
            held_out = parse_archs(chosen_space, rows.loc[rows["role"] == Role.HOLDOUT, "arch"].unique())
            options = predictor_options(predictor)
            fitted, others = trained_predictor(
                self.store, self.inventory, target, chosen_space, rows, held_out, options, seed
            )
            sources = options.source_names(others)
        return store_report(self.store, rows, fitted, sources, path)

    def quality(self, target: str | Target | None = None, *, space: str | None = None) -> list[Quality]:
        """Assess how far the labels of the store can be trusted, for each target and space with labels.

        Args:
            target: a full target, or a device for all its targets; None for all.
            space: name of a search space; None for all.

        Raises:
            BadInputError: if the store has no such label.
        """
        from latlab.harness.quality.assessment import assess

        target = None if target is None else str(target)
        labelled = self.store.labelled()
        pairs = [(t, s) for t, s in labelled if target in (None, t, t.split("/")[0]) and space in (None, s)]
        if not pairs:
            known = "\n".join(f"  {t} --space {s}" for t, s in labelled)
            asked = f" of {target or 'anything'}{f' in {space}' if space else ''}" if target or space else ""
            raise BadInputError(
                f"the store {self.store.path} has no labels{asked}",
                f"It has labels of:\n{known}" if known else "Measure some first (latlab measure).",
            )
        return [assess(self.store, *pair) for pair in pairs]


def _pairs(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return list(dict.fromkeys(zip(rows["target"], rows["space"], strict=True)))
