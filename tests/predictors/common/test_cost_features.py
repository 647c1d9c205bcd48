"""Cost features are the totals that they say, whatever a space does with its layer objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from latlab.predictors.common import cost_features as features
from latlab.predictors.common.cost_features import CostFeatures
from latlab.search_spaces import Architecture, Layer, get
from latlab.search_spaces.nasbench201.space import NASBench201


@pytest.mark.parametrize("name", ["nasbench201", "fbnet", "ofa-mobilenetv3"])
def test_columns_are_standardised_totals(name: str) -> None:
    space = get(name)
    made = CostFeatures(space)
    archs = space.sample(200, 5)
    values = made(archs)
    for group in CostFeatures.GROUPS:
        assert values[group].shape == (200, len(made.columns(group)))
        assert np.isfinite(values[group]).all()
    column = made.columns("totals").index("written macs")
    macs = np.array([sum(layer.macs for layer in space.layers(arch)) for arch in archs])
    assert np.corrcoef(values["totals"][:, column], np.log1p(macs))[0, 1] == pytest.approx(1)
    convolutions = next(i for i, c in enumerate(made.columns("global")) if c.startswith("written") and "count" in c)
    kind, kernel = made.columns("global")[convolutions].split()[1:3]
    counts = [sum(x.kind == kind and x.kernel == int(kernel) for x in space.layers(arch)) for arch in archs]
    assert np.corrcoef(values["global"][:, convolutions], counts)[0, 1] == pytest.approx(1)


class Forgetful(NASBench201):
    """A space that makes new layer objects each time it is asked."""

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        names = Layer.__slots__
        return tuple(Layer(*(getattr(one, name) for name in names)) for one in super().layers(arch, live=live))

    def sample(self, n: int, seed: object = 0) -> list[Architecture]:
        return super().sample(min(n, 60), seed)  # type: ignore[arg-type]


def test_spaces_may_make_new_layers_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    archs: Sequence[Architecture] = NASBench201().sample(50, 3)
    plenty = CostFeatures(Forgetful())(archs)
    monkeypatch.setattr(features, "MAX_LAYERS", 100)
    scarce = CostFeatures(Forgetful())(archs)
    for group in CostFeatures.GROUPS:
        assert np.array_equal(plenty[group], scarce[group])
