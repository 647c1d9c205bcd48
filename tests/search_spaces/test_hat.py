"""HAT's spaces against hand counts, HAT's own features and, where they are at hand, its published tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from latlab.search_spaces import ArchitectureError, SearchSpace, get
from latlab.search_spaces.hat.space import HEADS, MIDDLES, evenly

ENCODER, DECODER, WHOLE = get("hat-encoder"), get("hat-decoder"), get("hat")
TEXT = "e640|d512|l4|f7680|h10|x22|a6"


def total(space: SearchSpace, text: str, field: str = "macs", inside: str = "") -> int:
    return sum(getattr(layer, field) for layer in space.layers(space.parse(text)) if inside in layer.name)


def test_sizes_count_what_layers_can_add_up_to() -> None:
    def sums(choices: Sequence[int], depth: int) -> int:
        return len({sum(drawn) for drawn in combinations_with_replacement(choices, depth)})

    middles, heads, attended = (512, 1024, 2048, 3072), (2, 4, 8), (1, 2, 3)
    assert ENCODER.size == 2 * sums(middles, 6) * sums(heads, 6) == 1044
    per_depth = [sums(middles, d) * sums(heads, d) ** 2 * sums(attended, d) for d in range(1, 7)]
    assert DECODER.size == 4 * sum(per_depth)


def test_a_decoder_layer_by_hand() -> None:
    """Layer 4 in 30 steps: 5 hypotheses, 1 to 30 tokens so far, 2 x 30 of the encoder, feed-forward 3,072."""
    rows, macs = 30 * 5, {}
    for layer in DECODER.layers(DECODER.parse(TEXT)):
        name, _, part = layer.name.partition(".")
        if name == "layer4" and layer.macs:
            macs[part] = layer.macs
    assert macs == {
        "self.qkv": rows * 512 * 3 * 512,
        "self.scores": 5 * sum(range(1, 31)) * 512,
        "self.context": 5 * sum(range(1, 31)) * 512,
        "self.output": rows * 512 * 512,
        "cross.query": rows * 512 * 512,
        "cross.key": rows * 2 * 640 * 512,
        "cross.value": rows * 2 * 640 * 512,
        "cross.scores": rows * 60 * 512,
        "cross.context": rows * 60 * 512,
        "cross.output": rows * 512 * 512,
        "ffn.expand": rows * 512 * 3072,
        "ffn.project": rows * 3072 * 512,
    }


def test_parameters_of_an_encoder() -> None:
    """The base Transformer's: four projections, two feed-forward layers and two norms, all with biases; six times."""
    width, middle = 512, 2048
    layer = 4 * (width * width + width) + 2 * width * middle + middle + width + 4 * width
    assert total(ENCODER, f"d{width}|f{6 * middle}|h48", "params") == 6 * layer


def test_sums_are_spread_without_loss() -> None:
    assert evenly(7680, MIDDLES, 4) == (512, 2048, 2048, 3072)
    assert evenly(22, HEADS, 4) == (2, 4, 8, 8)
    small, large = total(DECODER, TEXT), total(DECODER, TEXT.replace("f7680", "f8192"))
    assert large - small == 30 * 2 * 5 * 512 * 512
    assert total(DECODER, TEXT.replace("h10", "h12")) == small
    assert total(DECODER, TEXT, "activations", "self.softmax") == 5 * sum(range(1, 31)) * 10


def test_of_the_encoder_only_its_width_matters_to_a_decoder() -> None:
    narrow, wide = (total(DECODER, TEXT.replace("e640", e)) for e in ("e512", "e640"))
    assert wide - narrow == 30 * 2 * 5 * 6 * (640 - 512) * 512


def test_thirty_mean_steps_are_a_sentence() -> None:
    arch = DECODER.parse(TEXT)
    (step,) = DECODER.readings(arch)["written"]
    macs, params = (sum(getattr(layer, cost) for layer in step) for cost in ("macs", "params"))
    assert 30 * macs == pytest.approx(total(DECODER, TEXT), rel=1e-3)
    assert params == total(DECODER, TEXT, "params")


def test_a_transformer_is_an_encoder_and_a_decoder() -> None:
    encoder, decoder = "d640|f9216|h28", "d512|l4|f7680|h10|x22|a6"
    whole = f"{encoder}+{decoder}"
    assert WHOLE.size == ENCODER.size * DECODER.size // 2
    for cost in ("macs", "params"):
        assert total(WHOLE, whole, cost) == total(ENCODER, encoder, cost) + total(DECODER, f"e640|{decoder}", cost)
    features = WHOLE.encode([WHOLE.parse(whole)], "hat")[0]
    assert features == pytest.approx([1, 0.75, 28 / 36, 512 / 640, 4 / 6, 1920 / 2048, 2.5 / 6, 5.5 / 6, 1.5 / 2])
    for wrong in (encoder, f"{encoder}+e640|{decoder}", f"{encoder}|{decoder}", f"{whole}+{decoder}"):
        with pytest.raises(ArchitectureError, match="an encoder and a decoder joined by"):
            WHOLE.parse(wrong)


def test_a_mutant_differs_by_one_choice_of_one_layer() -> None:
    arch = DECODER.parse(TEXT)
    for seed in range(300):
        mutant = DECODER.mutate(arch, Random(seed))
        changed = [at for at, (a, b) in enumerate(zip(arch.genes, mutant.genes, strict=True)) if a != b]
        if 2 in changed:
            assert changed[0] == 2  # the depth, and the sums with it; no width
        else:
            assert len(changed) == 1
            if changed[0] > 2:
                step, choices = abs(arch.genes[changed[0]] - mutant.genes[changed[0]]), (512, 1024, 2048, 3072)
                assert step in {abs(a - b) for a in choices for b in choices} | {1, 2, 4, 6}


def test_features_are_those_of_the_papers_predictor() -> None:
    """Its latency_predictor.py divides by [640, 6, 2048, 6, 640, 6, 2048, 6, 6, 2]."""
    features = DECODER.encode([DECODER.parse(TEXT)], "hat")[0]
    assert features == pytest.approx([1, 512 / 640, 4 / 6, 1920 / 2048, 2.5 / 6, 5.5 / 6, 1.5 / 2])
    assert ENCODER.encode([ENCODER.parse("d640|f9216|h28")], "hat")[0] == pytest.approx([1, 0.75, 28 / 36])


def genes_of(rows: Any, part: str) -> np.ndarray:
    """Genes of a published table's rows; raises where an average is no sum of choices."""
    depth = rows[f"{part}_layer_num"].to_numpy()
    averages = ["ffn_embed_dim", "self_attention_heads"]
    averages += ["ende_attention_heads", "arbitrary_ende_attn"] * (part == "decoder")
    sums = [rows[f"{part}_{name}_avg"].to_numpy() * depth for name in averages]
    assert all(np.abs(one - one.round()).max() < 1e-6 for one in sums)
    first = ["encoder_embed_dim"] * (part == "decoder") + [f"{part}_embed_dim"]
    widths = [rows[name].to_numpy() for name in first] + [depth] * (part == "decoder")
    return np.stack([*widths, *(one.round() for one in sums)], axis=1).astype(np.int64)


def costs(genes: np.ndarray) -> np.ndarray:
    """Work and bytes per kind of layer of each decoder."""
    kinds = ["linear", "matmul", "softmax", "layernorm", "concat"]
    rows = []
    for arch in DECODER.architectures(genes):
        layers = DECODER.layers(arch)
        per_kind = [[layer for layer in layers if layer.kind == kind] for kind in kinds]
        rows.append([sum(one.bytes for one in found) for found in per_kind] + [sum(one.macs for one in layers)])
    return np.array(rows, np.float64)


@pytest.mark.data
def test_every_published_row_is_an_architecture_and_costs_rank_decoders(data: Path) -> None:
    pandas = pytest.importorskip("pandas")
    tables = pandas.read_parquet(data / "hat_latency.parquet")
    assert len(tables) == 16_000
    for (_, device), rows in tables.groupby(["task", "device"]):
        for arch in ENCODER.architectures(genes_of(rows, "encoder")):
            assert ENCODER.parse(arch.text) == arch
        genes, latency = genes_of(rows, "decoder"), rows["latency_mean_decoder"].to_numpy()
        order = np.random.default_rng(0).permutation(len(rows))[:600]  # one half to fit, one to rank: enough here
        x, y = costs(genes[order]), latency[order]
        x = np.column_stack([(x - x.mean(0)) / x.std(0), np.ones(len(x))])
        fit, left = slice(300), slice(300, None)
        weights = np.linalg.solve(x[fit].T @ x[fit] + 0.1 * np.eye(x.shape[1]), x[fit].T @ y[fit])
        rho = spearmanr(x[left] @ weights, y[left]).statistic
        assert rho > (0.99 if device == "cpu_raspberrypi" else 0.94), (device, rho)
        assert len(DECODER.architectures(genes)) == len(rows)
