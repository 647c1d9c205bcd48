"""Pre-training of predictors, once for many targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from latlab.harness.active_learning.pretrained import Pretrained, pretrain
from latlab.harness.active_learning.source_devices import ALL, ENOUGH_LABELS, source_devices, wanted_names
from latlab.harness.active_learning.training_cache import Report
from latlab.harness.architectures import space_named
from latlab.harness.bench.source_tables import table_sources, task_sources
from latlab.harness.errors import BadInputError
from latlab.harness.lab.base import LabBase

__all__ = ["Pretraining"]


class Pretraining(LabBase):
    """The verb that trains a predictor on source devices and keeps it."""

    def pretrain(
        self,
        predictor: str,
        *,
        out: str | Path,
        space: str | None = None,
        sources: str | Sequence[str] = ALL,
        table: str | Path | None = None,
        task: str | None = None,
        data: str | Path | None = None,
        protocol: str = "latlab",
        options: Mapping[str, bool | int | float | str] = {},
        seed: int = 0,
        report: Report | None = None,
    ) -> Pretrained:
        """Pre-train a predictor on source devices and write it into a folder, for `PredictorOptions.pretrained`.

        The same call takes the result of an earlier one from the cache, and continues one that was interrupted.

        Args:
            predictor: its name, of a predictor that is trained for seconds or more.
            out: the folder, which is made or replaced as a whole.
            space: name of the search space; not needed with `task`.
            sources: `all`, or names: of imported sources, targets or devices of the store; with `table` and `task`, of
                columns.
            table: a latency table whose columns are the sources, instead of the store.
            task: a published task whose sources are used, instead of the store.
            data: folder of the published tables, for `task`.
            protocol: with `table` or `task`, the protocol that chooses which labels are used.
            options: arguments of the predictor's constructor.
            seed: seed of everything random in the training.
            report: called with the steps that are done, the number of all, and figures by name.

        Raises:
            BadInputError: if the arguments make no sense, there are no sources, or the folder cannot be written.
        """
        if table is not None or task is not None:
            if table is not None and task is not None:
                raise BadInputError("a table and a task were named: only one can be the source")
            wanted = wanted_names(sources, "sources", "--sources")
            devices = None if wanted is None else [name for name in _listed(sources) if name in wanted]
            if table is not None:
                if space is None:
                    raise BadInputError("a table needs the name of its search space", "Add --space.")
                chosen, found, origin = table_sources(Path(table), space, devices, protocol, seed)
            else:
                if data is None:
                    raise BadInputError("a published task needs the folder of the published tables", "Add --data.")
                chosen, found, origin = task_sources(str(task), Path(data), devices, protocol, seed)
                if space not in (None, chosen.name):
                    raise BadInputError(f"the task {task} is of {chosen.name}, not of {space}", "Leave out --space.")
        else:
            if space is None:
                raise BadInputError("say for which search space: --space NAME")
            chosen, origin = space_named(space), "store"
            found = source_devices(self.store, chosen, None, sources, ENOUGH_LABELS)
        folder, _ = pretrain(predictor, chosen, found, out, options=options, protocol=origin, seed=seed, report=report)
        return folder


def _listed(names: str | Sequence[str]) -> list[str]:
    return [one.strip() for one in (names.split(",") if isinstance(names, str) else names)]
