"""Predictors that are pre-trained on source devices and not yet fitted to a target, as folders."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from latlab.harness.active_learning.card_files import card_from, check_kinds, known_fields, read_card
from latlab.harness.active_learning.source_devices import signature
from latlab.harness.active_learning.training_cache import Report, pretrained_once
from latlab.harness.errors import BadInputError
from latlab.harness.paths import whole_folder
from latlab.harness.text import clean
from latlab.predictors import Predictor, SourceDevice, UnknownPredictorError, create, names, predictor_class
from latlab.search_spaces import SearchSpace

__all__ = ["Pretrained", "PretrainingCard", "pretrain", "read_pretrained"]

CARD = "pretraining.json"
FORMAT = 1
"""Version of the card's form."""
TRIED = (1, 5)
"""Numbers of made-up labels to which a loaded predictor is fitted, to see that it predicts numbers: one label alone is
fitted in another way."""


@dataclass(frozen=True)
class PretrainingCard:
    """What a pre-trained predictor says about itself, wherever its folder goes."""

    predictor: str
    space: str
    seed: int
    sources: Sequence[Mapping[str, Any]]
    """The devices that it was trained on: `name` and `architectures`, their number."""
    sources_sha256: str
    """A SHA-256 over all labels of the sources."""
    protocol: str
    """Where the sources' labels are from: `store`, or a table and the protocol that chose its rows."""
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """Arguments of the predictor's constructor."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """How the training went: `train_s`, its duration in seconds, and what the predictor reports, such as
    `held_out_spearman` or `loss`."""
    latlab: str = field(default_factory=lambda: version("latlab"))
    """The version of latlab that has trained it."""
    trained_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def to_json(self) -> dict[str, Any]:
        """Return the card as JSON values."""
        return {"format": FORMAT, **asdict(self), "sources": [dict(one) for one in self.sources]}

    @classmethod
    def from_json(cls, values: object) -> PretrainingCard:
        """Return the card that `to_json` made.

        Raises:
            ValueError: it is none, or of a newer latlab.
        """
        kinds = {"seed": int, "sources": list, "options": dict, "figures": dict}
        known = known_fields(cls, values, FORMAT, kinds)
        check_kinds(known, "figures", int, float)
        check_kinds(known, "options", bool, int, float, str)
        return card_from(cls, known)


@dataclass(frozen=True)
class Pretrained:
    """A folder with a pre-trained predictor."""

    folder: Path
    card: PretrainingCard

    @property
    def source_names(self) -> tuple[str, ...]:
        """The names of the devices that it was trained on."""
        return tuple(str(one["name"]) for one in self.card.sources)

    def check_target(self, target: str, is_same_device: Callable[[str], bool]) -> None:
        """Raise `BadInputError` if it was trained on labels of the target's device.

        Args:
            is_same_device: whether a device's name is another one of the target's device.
        """
        for name in self.source_names:
            if name == target or is_same_device(name.partition("/")[0]):
                raise BadInputError(
                    f"the predictor in {self.folder} was trained on labels of {name}, so it cannot be judged or used "
                    f"as one that is new to {target}",
                    "Pre-train another one without that device: latlab pretrain --sources.",
                )

    def predictor(self, space: SearchSpace) -> Predictor:
        """Return the predictor, which `adapt` fits to a target.

        Raises:
            BadInputError: it is of another space, of a predictor that is not installed, or damaged.
        """
        if self.card.space != space.name:
            raise BadInputError(f"{self.folder} holds a predictor of {self.card.space}, not of {space.name}")
        try:
            found = predictor_class(self.card.predictor).load(self.folder, space)
            _try(found)
        except UnknownPredictorError as error:
            raise BadInputError(f"{self.folder} holds a predictor that is not installed here: {error}") from error
        except (ValueError, ArithmeticError, RuntimeError, LookupError, TypeError) as error:  # of whatever is damaged
            reason = clean(str(error)).splitlines()[0][:300] if str(error) else type(error).__name__
            reason = reason.replace("fit the predictor again", "pre-train it again")
            raise BadInputError(reason, "`latlab pretrain` writes such folders.") from error
        return found


def _try(predictor: Predictor) -> None:
    """Raise `ValueError` if a predictor, fitted to a few made-up labels, does not predict positive numbers."""
    genes = predictor.space.genes(predictor.space.sample(2 * max(TRIED), 0))
    for count in TRIED:
        with np.errstate(all="ignore"):
            predictor.adapt(genes[:count], np.linspace(1, 2, count))
            found = predictor.predict(genes)
        if not all(np.isfinite(values).all() and (values > 0).all() for values in (found.mean_ms, found.std_ms)):
            raise ValueError("its latencies are no positive numbers: its files are damaged")
    predictor.adapt([], [])


def read_pretrained(folder: str | Path) -> Pretrained:
    """Return the folder that `pretrain` wrote. Nothing in it is run or unpickled, so that it may come from anybody.

    Raises:
        BadInputError: there is none, or its card is damaged.
    """
    folder = Path(folder)
    fitted = (folder / "card.json").is_file()
    hint = "It was fitted to a target: name it with --predictor-folder." if fitted else "`latlab pretrain` writes such."
    return Pretrained(folder, read_card(folder, CARD, PretrainingCard.from_json, "pre-trained predictor", hint))


def pretrain(
    name: str,
    space: SearchSpace,
    sources: Sequence[SourceDevice],
    out: str | Path,
    *,
    options: Mapping[str, bool | int | float | str] = {},
    protocol: str = "store",
    seed: int = 0,
    report: Report | None = None,
) -> tuple[Pretrained, bool]:
    """Pre-train a predictor, or take it from the cache, and write it into a folder, whole or not at all.

    Args:
        name: the predictor.
        out: the folder, which is made or replaced.
        options: arguments of its constructor.
        protocol: where the labels are from, for the card.
        report: is told of the progress.

    Returns:
        The folder, and whether the predictor was in the cache.

    Raises:
        BadInputError: it is no predictor that is trained on sources, cannot learn from these, or cannot be written.
    """
    try:
        kind = predictor_class(name)
        if not kind.pretraining_lasts:
            lasting = [one for one in names() if predictor_class(one).pretraining_lasts]
            raise BadInputError(
                f"the predictor {name} has no training that would be worth keeping: it takes a moment",
                f"These have: {', '.join(lasting)}.",
            )
        predictor = create(name, space, seed=seed, **options)
    except (UnknownPredictorError, ValueError) as error:
        raise BadInputError(f"the predictor {name}: {error}") from error
    if not sources:
        raise BadInputError(
            f"there are no source devices in {space.name} to train {name} on",
            "`latlab sources` lists what there is, `latlab import` adds more; or name a --table.",
        )
    if Path(out).is_dir() and any(Path(out).iterdir()) and not (Path(out) / CARD).exists():
        raise BadInputError(f"{out} has other files, which would be lost", "Name a new folder with --out.")
    try:
        predictor, figures, known = pretrained_once(predictor, options, sources, report)
    except ValueError as error:
        raise BadInputError(
            f"the predictor {name} cannot learn from {len(sources)} source devices: {error}",
            "`latlab sources` lists what there is, --sources chooses.",
        ) from error
    origin = signature(sources)
    card = PretrainingCard(
        predictor=name,
        space=space.name,
        seed=seed,
        sources=origin["sources"],
        sources_sha256=origin["sha256"],
        protocol=protocol,
        options=dict(options),
        figures={key: value for key, value in figures.items() if math.isfinite(value)},
    )
    with whole_folder(out) as part:
        predictor.save(part)
        (part / CARD).write_text(json.dumps(card.to_json(), indent=1) + "\n", encoding="utf-8")
    return Pretrained(Path(out), card), known
