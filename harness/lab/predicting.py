"""Predictions, from what the store holds of a target and of other devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latlab.harness.active_learning.fitted_predictor import FittedPredictor
from latlab.harness.active_learning.prediction import (
    Predictions,
    nothing_measured,
    predict,
    source_filter_of,
    stored_target,
)
from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_options
from latlab.harness.active_learning.source_devices import ALL, source_devices
from latlab.harness.active_learning.target_labels import LATENCY, check_metric
from latlab.harness.architectures import parse_archs, space_named
from latlab.harness.lab.base import LabBase
from latlab.harness.models.input_options import InputOptions
from latlab.harness.models.own_model import own_model
from latlab.harness.store.tables import LABELS
from latlab.harness.targets import Target
from latlab.predictors import SourceDevice
from latlab.search_spaces import Architecture

if TYPE_CHECKING:
    from torch import nn

    from latlab.harness.active_learning.model_prediction import ModelPrediction

__all__ = ["Predicting"]


class Predicting(LabBase):
    """The verbs that predict, and those that say what predictors learn from."""

    def predict(
        self,
        target: str | Target,
        *,
        space: str | None = None,
        archs: Sequence[str | Architecture] | None = None,
        predictor: PredictorOptions | str = PredictorOptions(),
        seed: int = 0,
        metric: str = LATENCY,
    ) -> Predictions:
        """Predict latencies of architectures on a target, from what the store holds of it and of other devices.

        Labels of the target in other search spaces count, too, with predictors that can use them. If it has none in
        `space`, predictors that can predict from these or from their prior alone do so, with wide intervals; the others
        raise.

        Args:
            target: a full target; the device's name is enough if the store has only one target of it.
            space: name of the search space; None for the only one in which the target has measurements.
            archs: canonical strings; None for the whole space, or for a large sample of a space too large to list.
            predictor: the predictor, and what it learns from; its name is enough.
            seed: seed of the predictor's random choices.
            metric: another metric of the target's measurements to predict in the place of the latency
                (`target_labels.PREDICTED`), such as `energy_mj` or `peak_memory_mb`. Columns are named after it and its
                unit. Other devices teach latencies only, so it comes from the target's own labels.

        Raises:
            BadInputError: if there is nothing to predict from, or several spaces could be meant.
        """
        fitted = self.predictor(target, space=space, predictor=predictor, seed=seed, metric=metric)
        return predict(fitted, archs)

    def predictor(
        self,
        target: str | Target,
        *,
        space: str | None = None,
        predictor: PredictorOptions | str = PredictorOptions(),
        seed: int = 0,
        metric: str = LATENCY,
    ) -> FittedPredictor:
        """Return a predictor of latencies on a target, fitted to what the store holds of it and of other devices.

        It answers thousands of single questions a second, and can be saved. The same call returns the same one until a
        label that it depends on changes.

        Args:
            target, space, predictor, seed, metric: as for `predict`.

        Raises:
            BadInputError: if there is nothing to learn from, or several spaces could be meant.
        """
        return self._predictors.get(self.inventory, str(target), space, predictor_options(predictor), seed, metric)

    def predict_model(
        self,
        target: str | Target,
        model: str | Path | nn.Module,
        *,
        inputs: InputOptions = InputOptions(),
        spaces_from: str | Sequence[str] = ALL,
        metric: str = LATENCY,
    ) -> ModelPrediction:
        """Predict the latency of any model on a target, from operators, networks and models that were measured on it.

        `onboard(target, space="operators", budget=30)` measures what says most. The model's file says which operators
        the runtime executes; a module is exported first. A model that was itself measured is answered with its label.

        Args:
            target: a full target; the device's name is enough if the store has only one target of it.
            model: a model file, `package.module:factory`, whose code is run here, or a module.
            inputs: what the model leaves open of its inputs.
            spaces_from: search spaces whose labels are learnt from: `all`, `none`, or names. Models of your own that
                were measured are of no space, and always learnt from.
            metric: as for `predict`.

        Raises:
            BadInputError: if nothing of the target can be learnt from, or the model cannot be read.
        """
        # scipy.linalg is heavy
        from latlab.harness.active_learning.learnt_costs import LearntCosts, learn_costs
        from latlab.harness.active_learning.model_prediction import predict_model

        found = stored_target(self.store, str(target))
        if "/" not in found:
            raise nothing_measured(self.store, found, f"(latlab onboard {found} --space operators --budget 30)")
        chosen = Target.parse(found)
        check_metric(metric)
        own = own_model(model, inputs, chosen)
        cache = self.cache

        def make() -> LearntCosts:
            return learn_costs(self.store, cache, chosen, spaces_from, metric)

        def spaces(_: LearntCosts) -> list[str]:
            return sorted({space for one, space in self.store.labelled() if one == found})

        costs = self._costs.kept_or_made(repr((found, spaces_from, metric)), make, spaces)
        return predict_model(costs, own.name, own.artifact(self._cache_folder), cache)

    def sources(
        self,
        space: str,
        *,
        exclude_target: str | Target | None = None,
        which: str | Sequence[str] = ALL,
        holdout: Sequence[str | Architecture] = (),
    ) -> list[SourceDevice]:
        """Return the source devices that a predictor may learn from: imported ones, and measured targets of the store.

        They have all their labels here. `onboard`, `predict` and `report` use those of at most 2,000 networks of each,
        drawn at random, but the same ones in each call and, as far as they have them, for all devices.

        Args:
            space: name of the search space.
            exclude_target: the target that the predictor is for. It is never its own source, nor is the same target
                under another name of its device, nor an imported copy of its labels. Other targets of its device are
                sources: they are measured already, and say much about it.
            which: `all`, `none`, or names: of imported sources, targets, or devices. With `all`, targets with fewer
                than ten labels are left out, and simulated ones if the target is real.
            holdout: architectures whose labels are left out of the sources measured on the target's own device.

        Raises:
            BadInputError: if a name is unknown, or is the target itself.
        """
        chosen_space = space_named(space)
        target = None if exclude_target is None else stored_target(self.store, str(exclude_target))
        rows = self.store.table(target=target, space=space, only=LABELS) if target is not None else None
        allowed = source_filter_of(self.inventory, target, rows, parse_archs(chosen_space, holdout))
        return source_devices(self.store, chosen_space, allowed, which)
