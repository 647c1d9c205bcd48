"""MultiPredict: pre-trained on devices it learns the next one; files keep it. Its base class is NASFLAT's too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transfer_devices import DEVICES, latency, sources

from latlab.predictors.common.metrics import mape_percent, spearman
from latlab.predictors.multipredict import MultiPredict
from latlab.search_spaces import get


@pytest.fixture(scope="module")
def trained() -> MultiPredict:
    space = get("nasbench201")
    predictor = MultiPredict(space)
    default, predictor.folds = predictor.settings, 2
    pretraining, transfer = default.pretraining, default.transfer
    predictor.settings = replace(
        default,
        pretraining=replace(pretraining, epochs=60, rate=2e-3),
        transfer=replace(transfer, epochs=15, rate=1e-3),
        runs=2,
    )
    predictor.pretrain(sources(space, 100))
    return predictor


def test_learns_a_target_like_a_source(trained: MultiPredict) -> None:
    space = trained.space
    support, test = space.genes(space.sample(20, 5)), space.genes(space.sample(300, 9))
    for device in DEVICES:
        trained.adapt(support, latency(space, support, device))
        truth = latency(space, test, device)
        prediction = trained.predict(test)
        assert spearman(prediction.mean_ms, truth) > 0.8
        assert mape_percent(prediction.mean_ms, truth) < 25


def test_saved_and_loaded_is_the_same(trained: MultiPredict, tmp_path: Path) -> None:
    space = trained.space
    support, test = space.genes(space.sample(5, 5)), space.genes(space.sample(30, 9))
    trained.adapt(support, latency(space, support, 1))
    trained.save(tmp_path)
    again = MultiPredict.load(tmp_path, space)
    assert np.array_equal(again.predict(test).mean_ms, trained.predict(test).mean_ms)
    assert np.array_equal(again.leave_one_out().mean_ms, trained.leave_one_out().mean_ms)
