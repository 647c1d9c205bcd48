"""Exports of many networks into a folder, for which no device is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latlab.harness.architectures import parse_archs, sample_space, space_to_measure
from latlab.harness.distributed.engines import check_engine
from latlab.harness.errors import BadInputError
from latlab.harness.exporters.base import ExportRequest, get_exporter
from latlab.harness.exporters.base import names as installed_formats
from latlab.harness.lab.base import LabBase
from latlab.search_spaces import Architecture

if TYPE_CHECKING:
    from latlab.harness.exporters.many import ExportedNetwork

__all__ = ["ExportedFolder", "Exporting", "export_space"]

MOST_IMAGES = 65_536
"""Largest batch size."""


@dataclass(frozen=True)
class ExportedFolder:
    """What an export of many networks has done."""

    folder: str
    networks: int
    """Files that are in the folder now, of those that were asked for: one per network and format."""
    new: int
    """Number of them that were exported by this call."""
    failed: int
    failures: dict[str, int]
    """Number of failures by what is wrong, the most frequent first."""


class Exporting(LabBase):
    """The verb that exports many networks."""

    def export_models(
        self,
        space: str,
        to: str | Path,
        *,
        count: int | None = None,
        archs: Sequence[str | Architecture] | None = None,
        formats: Sequence[str] = ("onnx",),
        precision: str = "fp32",
        batch_size: int = 1,
        seed: int = 0,
        engine: str = "local",
        jobs: int = 1,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> ExportedFolder:
        """Export random architectures of a space, or the listed ones, into a folder with an index.

        Each file is compared with eager PyTorch. The same call continues after a kill.

        Args:
            space: name of the search space.
            to: a folder, or a URL of one that fsspec knows, such as `s3://bucket/folder`.
            count: number of random architectures.
            archs: canonical strings of architectures.
            formats: names of formats: `onnx`, `tflite`, `torchscript`, ...
            precision: number format of weights and activations.
            batch_size: images per inference.
            seed: seed of the random architectures; weights have the seed 0, as those that are measured.
            engine: `local`, `ray` or `ray://HOST:PORT`.
            jobs: number of processes of `local`.
            progress: called with the exports that are done, and how many there are.

        Raises:
            BadInputError: the arguments make no sense, or the folder or the engine cannot be used.
            LatlabError: the folder cannot be written.
        """
        return export_space(
            space,
            str(to),
            count=count,
            archs=archs,
            formats=formats,
            precision=precision,
            batch_size=batch_size,
            seed=seed,
            engine=engine,
            jobs=jobs,
            progress=progress,
        )


def export_space(
    space: str,
    to: str,
    *,
    count: int | None,
    archs: Sequence[str | Architecture] | None,
    formats: Sequence[str],
    precision: str,
    batch_size: int,
    seed: int,
    engine: str,
    jobs: int,
    progress: Callable[[int, int], None],
) -> ExportedFolder:
    """Return what `Lab.export_models` does; no store is opened."""
    chosen = space_to_measure(space)
    if (count is None) == (archs is None):
        raise BadInputError("say which architectures: how many (count), or a list of them, not both")
    if not 1 <= jobs <= 1024:
        raise BadInputError(f"jobs are from 1 to 1024, not {jobs}")
    if not 1 <= batch_size <= MOST_IMAGES:
        raise BadInputError(f"the batch size is from 1 to {MOST_IMAGES:,}, not {batch_size}")
    check_engine(engine)
    if not to.strip():
        raise BadInputError("the folder for the networks has no name", "Name one with --to.")
    names = list(dict.fromkeys(formats))
    for name in names:
        if name not in installed_formats():
            raise BadInputError(f"no format {name!r}", f"Formats: {', '.join(installed_formats())}")
        if precision not in get_exporter(name).precisions:
            raise BadInputError(
                f"{name} is not written in {precision}", f"Precisions: {', '.join(get_exporter(name).precisions)}"
            )
    found = parse_archs(chosen, archs) if archs is not None else sample_space(chosen, count or 0, seed)
    if not found or not names:
        raise BadInputError("there is nothing to export")
    from latlab.harness.exporters.many import export_many, open_destination, write_index

    open_destination(to)  # says at once what is wrong with it

    def requests() -> Iterator[ExportRequest]:
        for text in dict.fromkeys(arch.text for arch in found):
            for name in names:
                yield ExportRequest(chosen.name, text, name, batch_size, precision)

    total = len({arch.text for arch in found}) * len(names)
    done: list[ExportedNetwork] = []
    progress(0, total)
    for one in export_many(requests(), to, engine=engine, jobs=jobs):
        done.append(one)
        progress(len(done), total)
    write_index(to, done)
    failures = Counter(f"{one.format}: {one.error}" for one in done if one.status != "ok")
    failed = sum(failures.values())
    return ExportedFolder(to, len(done) - failed, sum(one.new for one in done), failed, dict(failures.most_common(10)))
