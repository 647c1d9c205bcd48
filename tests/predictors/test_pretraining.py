"""Pre-training that is interrupted continues and gives the same; what is saved after it adapts as before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transfer_devices import latency, sources

from latlab.predictors import Predictor, names, predictor_class
from latlab.predictors.bases.fine_tuning import Schedule, Settings
from latlab.predictors.bases.trunks import trunk_of
from latlab.predictors.brp_nas import BRPNAS
from latlab.predictors.common.metrics import spearman
from latlab.predictors.help.meta_baselines import MAML, MetaSGD, Scratch
from latlab.predictors.help.meta_learning import Settings as HelpSettings
from latlab.predictors.help.meta_learning import adapted
from latlab.predictors.help.network import forward, initial
from latlab.predictors.help.neural_process import NeuralProcess
from latlab.predictors.help.predictor import Help
from latlab.predictors.help.published_checkpoint import published_weights
from latlab.predictors.in_context.predictor import InContext
from latlab.predictors.in_context.tasks import TasksSettings
from latlab.predictors.in_context.training import Settings as InContextSettings
from latlab.predictors.multipredict import MultiPredict
from latlab.predictors.nasflat import Nasflat
from latlab.predictors.ofa_mlp import FACTS, GPUS, OFAMLP
from latlab.predictors.training_log import TrainingLog
from latlab.search_spaces import get

CHAINS = get("fbnet")
SOURCES = sources(CHAINS, 40)
GENES = CHAINS.genes(CHAINS.sample(60, 9))
LATENCY = latency(CHAINS, GENES, 0)

STEPS = 8
SHORT = Schedule(epochs=STEPS, batch=16, rate=1e-3, decay=1e-4)
TRAINED: Mapping[str, Callable[[], Predictor]] = {
    "help": lambda: Help(CHAINS, settings=HelpSettings(episodes=STEPS, check_every=3)),
    "maml": lambda: MAML(CHAINS, episodes=STEPS),
    "meta-sgd": lambda: MetaSGD(CHAINS, episodes=STEPS),
    "anp": lambda: NeuralProcess(CHAINS, episodes=STEPS),
    "multipredict": lambda: MultiPredict(CHAINS, settings=Settings(SHORT, SHORT)),
    "nasflat": lambda: Nasflat(CHAINS, settings=Settings(SHORT, SHORT, last_epochs=2)),
    "brp-nas": lambda: BRPNAS(CHAINS, settings=Settings(Schedule(STEPS, 40, 1e-3, 0), Schedule(1, 16, 1e-3, 0))),
    "ofa-mlp": lambda: OFAMLP(CHAINS, steps=STEPS),
    "in-context": lambda: InContext(
        CHAINS,
        settings=InContextSettings(
            steps=STEPS, batch=4, queries=8, refresh=3, tasks=TasksSettings(architectures=120, pool=16)
        ),
    ),
}
"""Predictors whose training takes a moment, by name."""


class EndedError(Exception):
    """The end of a process, for a test."""


class Interrupted(TrainingLog):
    """A log that keeps each state, and ends the training after some steps."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.state: dict[str, NDArray[Any]] = {}

    def keep(self, state: Callable[[], Mapping[str, NDArray[np.generic]]]) -> None:
        self.state = {name: np.array(value) for name, value in state().items()}
        if self.state["done"][0] == self._steps:
            raise EndedError


class Continued(TrainingLog):
    """A log that has the state of an earlier process, and notes the first step."""

    def __init__(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._state = state
        self.first = 0

    def unfinished(self) -> Mapping[str, NDArray[Any]]:
        return self._state

    def progress(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        self.first = self.first or done


def predictions(predictor: Predictor) -> NDArray[np.float64]:
    predictor.adapt(GENES[:12], LATENCY[:12])
    return predictor.predict(GENES).mean_ms


def test_every_predictor_that_trains_for_long_is_tested_here() -> None:
    assert {name for name in names() if predictor_class(name).pretraining_lasts} == set(TRAINED)


@pytest.mark.parametrize("name", TRAINED)
def test_an_interrupted_training_continues_to_the_same_result(name: str) -> None:
    whole, begun, continued = (TRAINED[name]() for _ in range(3))
    whole.pretrain(SOURCES)
    begun.training_log = interrupted = Interrupted(5)
    with pytest.raises(EndedError):
        begun.pretrain(SOURCES)
    torch.manual_seed(99)  # another process has drawn other numbers
    continued.training_log = log = Continued(interrupted.state)
    continued.pretrain(SOURCES)
    assert log.first == 6
    np.testing.assert_array_equal(predictions(continued), predictions(whole))


@pytest.mark.parametrize("name", ["help", "multipredict"])
def test_a_state_of_another_training_is_ignored(name: str) -> None:
    whole, begun = TRAINED[name](), TRAINED[name]()
    whole.pretrain(SOURCES)
    begun.training_log = log = Continued({"done": np.array([5]), "tensor/strange": np.zeros(3)})
    begun.pretrain(SOURCES)
    assert log.first == 1
    np.testing.assert_array_equal(predictions(begun), predictions(whole))


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_saved_after_pretraining_adapts_as_before(name: str, tmp_path: Path) -> None:
    predictor = TRAINED[name]()
    predictor.pretrain(SOURCES)
    predictor.save(tmp_path)
    again = type(predictor).load(tmp_path, CHAINS)
    for transfer in (predictor, again):
        if name in ("multipredict", "nasflat", "brp-nas"):  # the schedule of the fine-tuning is no part of the file
            transfer.settings = Settings(SHORT, SHORT)  # type: ignore[attr-defined]
    np.testing.assert_allclose(predictions(again), predictions(predictor), rtol=1e-5)


def test_modules_of_help_are_options() -> None:
    plain = MetaSGD(CHAINS, episodes=4)
    same = Help(CHAINS, episodes=4, condition=False, modulate=False)
    for predictor in (plain, same):
        predictor.pretrain(SOURCES)
        assert predictor.wanted() == ()
    np.testing.assert_array_equal(predictions(plain), predictions(same))
    fixed = MAML(CHAINS, episodes=4)
    fixed.pretrain(SOURCES)
    assert fixed._meta is not None
    assert all((rate == 1e-3).all() for rate in fixed._meta.rates.values())
    assert plain._meta is not None
    assert any((rate != 1e-3).any() for rate in plain._meta.rates.values())
    with pytest.raises(ValueError, match="modulate=off"):
        Help(CHAINS, condition=False)


def test_the_inner_loop_is_that_of_torch_func() -> None:
    """A batch of tasks takes the same step as `torch.func` does for each task by itself."""
    trunk, generator = trunk_of(CHAINS), torch.Generator().manual_seed(0)
    meta = initial(trunk, generator, modulate=False)
    x = trunk.inputs(GENES[:10])[None].expand(3, -1, -1)
    y, device = torch.rand(3, 10, generator=generator), torch.rand(3, 10, generator=generator)

    def loss(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        one = {name: value[None] for name, value in weights.items()}
        return ((forward(trunk, one, x[None], own[None])[0] - y) ** 2).mean()

    found = adapted(trunk, meta, None, x, y, device, steps=1, train=False)
    for task in range(3):
        gradient = torch.func.grad(loss)(meta.weights, x[task], y[task], device[task])
        for name, value in gradient.items():
            torch.testing.assert_close(found[name][task], meta.weights[name] - meta.rates[name] * value)


def published(width: int = 132) -> dict[str, Any]:
    """The content of a checkpoint in the form of HELP's authors, with random weights."""
    layers = {"fc1": (100, width), "fc2": (100, 100), "fc_hw1": (100, 10), "fc_hw2": (100, 100)}
    layers |= {"fc3": (200, 200), "fc4": (200, 200), "fc5": (1, 200)}
    model = {f"meta_learner.{name}.weight": 0.1 * torch.randn(shape) for name, shape in layers.items()}
    model |= {f"meta_learner.{name}.bias": 0.1 * torch.randn(shape[0]) for name, shape in layers.items()}
    encoder = {"z_encoder.0.weight": torch.randn(10, 10), "z_encoder.0.bias": torch.randn(10)}
    encoder |= {"z_encoder.2.weight": torch.randn(1206, 10), "z_encoder.2.bias": torch.randn(1206)}
    rates = {name: torch.full_like(value, 2e-3) for name, value in model.items()}
    return {"epi": 7, "model": model, "inference_network": encoder, "task_lr": rates}


def test_published_weights_give_what_the_published_network_gives(tmp_path: Path) -> None:
    content = published()
    torch.save(content, tmp_path / "help_max_corr.pt")
    trunk = trunk_of(CHAINS)
    meta = published_weights(str(tmp_path / "help_max_corr.pt"), trunk, HelpSettings())
    x, device = trunk.inputs(GENES[:7]), torch.rand(10)

    def layer(name: str, rows: torch.Tensor) -> torch.Tensor:
        weight, bias = (content["model"][f"meta_learner.{name}.{kind}"] for kind in ("weight", "bias"))
        return torch.nn.functional.linear(rows, weight, bias)

    own = layer("fc2", layer("fc1", x).relu()).relu()
    hardware = layer("fc_hw2", layer("fc_hw1", device.expand(7, -1)).relu()).relu()
    expected = layer("fc5", layer("fc4", layer("fc3", torch.cat([own, hardware], dim=1)).relu()).relu())[:, 0]
    params = {name: value[None] for name, value in meta.weights.items()}
    torch.testing.assert_close(forward(trunk, params, x[None], device[None])[0], expected, rtol=1e-4, atol=1e-5)
    predictor = Help(CHAINS, checkpoint=str(tmp_path / "help_max_corr.pt"))
    predictor.pretrain(SOURCES)
    assert np.isfinite(predictions(predictor)).all()


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/latlab-was-run"),))


def test_checkpoints_are_read_without_running_them(tmp_path: Path) -> None:
    path = tmp_path / "foreign.pt"
    predictor = Help(CHAINS, checkpoint=str(path))
    for content, words in (
        (published(145), "arch1.weight is"),
        ({"model": {}}, "no checkpoint of HELP"),
        ([1, 2], "no checkpoint of HELP"),
        ({"model": Hostile()}, "cannot be read without running"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=words):
            predictor.pretrain(SOURCES)
    assert not Path("/tmp/latlab-was-run").exists()
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        predictor.pretrain(SOURCES)
    with pytest.raises(ValueError, match="cannot be read"):
        Help(CHAINS, checkpoint=str(tmp_path / "none.pt")).pretrain(SOURCES)
    torch.save(published(132), path)
    with pytest.raises(ValueError, match="cannot be used for NAS-Bench-201"):
        published_weights(str(path), trunk_of(get("nasbench201")), HelpSettings())


def test_scratch_and_ofa_mlp_learn_a_device_alone() -> None:
    genes = CHAINS.genes(CHAINS.sample(500, 3))
    truth = latency(CHAINS, genes, 0)
    for predictor in (Scratch(CHAINS), OFAMLP(CHAINS, steps=300)):
        type(predictor).folds, before = 0, type(predictor).folds
        predictor.adapt(genes[:300], truth[:300])
        assert spearman(predictor.predict(genes[300:]).mean_ms, truth[300:]) > 0.8
        type(predictor).folds = before


def test_ofa_mlp_is_fine_tuned_with_two_layers_frozen() -> None:
    predictor = OFAMLP(CHAINS, steps=40, base="source3")
    predictor.pretrain(SOURCES)
    predictor.adapt(GENES[:20], LATENCY[:20])
    for name, value in predictor._params.items():
        same = torch.equal(value[0], predictor._source[name][1])
        assert same == name.startswith(("layer1", "layer2"))
    with pytest.raises(ValueError, match="base other is not among the sources source2, source3"):
        OFAMLP(CHAINS, base="other").pretrain(SOURCES)


def test_ofa_mlp_for_gpus_predicts_one_from_its_facts() -> None:
    ofa = get("ofa-mobilenetv3")
    own = sources(ofa, 40)
    gpus = [type(one)(name, one.genes, one.latency_ms) for one, name in zip(own, ("v100_1", "2080ti_1"), strict=True)]
    facts = dict(zip(FACTS, GPUS["titan_rtx"], strict=True))
    predictor = OFAMLP(ofa, steps=40, generalised=True, facts=facts)
    predictor.pretrain(gpus)
    assert predictor._source["layer1.weight"].shape == (1, 131, 400)
    found = predictor.predict(own[0].genes)
    assert (found.upper_ms > 2 * found.lower_ms).all()
    with pytest.raises(ValueError, match="facts of source2 are not known"):
        predictor.pretrain(own)
    with pytest.raises(ValueError, match="memory_gb"):
        OFAMLP(ofa, generalised=True, facts={"cores": 1.0})
    without = OFAMLP(ofa, steps=5, generalised=True)
    without.pretrain(gpus)
    with pytest.raises(ValueError, match="needs facts"):
        without.adapt(own[0].genes[:5], own[0].latency_ms[:5])


@pytest.mark.gpu
def test_help_trains_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU")
    predictor = Help(CHAINS, episodes=STEPS, device="cuda")
    predictor.pretrain(SOURCES)
    assert np.isfinite(predictions(predictor)).all()
