"""Writers of small files in the publishers' formats."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from latlab.search_spaces import Architecture, get
from latlab.search_spaces.ofa_mobilenetv3.skeleton import blocks_of, widths

HAT_COLUMNS = (
    "encoder_embed_dim", "encoder_layer_num", "encoder_ffn_embed_dim_avg", "encoder_self_attention_heads_avg",
    "decoder_embed_dim", "decoder_layer_num", "decoder_ffn_embed_dim_avg", "decoder_self_attention_heads_avg",
    "decoder_ende_attention_heads_avg", "decoder_arbitrary_ende_attn_avg", "latency_mean_encoder",
    "latency_mean_decoder", "latency_std_encoder", "latency_std_decoder",
)  # fmt: skip


def latencies(archs: Sequence[Architecture], scale: float = 1.0) -> list[float]:
    """Return the latencies of a made-up device in milliseconds."""
    space = get(archs[0].space)
    return [scale * (0.1 + sum(layer.macs for layer in space.layers(arch)) / 5e7) for arch in archs]


def torch_file(path: Path, value: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(value, path)
    return path


def pickle_file(path: Path, value: object) -> Path:
    path.write_bytes(pickle.dumps(value, 3))
    return path


def table_file(path: Path, columns: dict[str, object]) -> Path:
    frame = pd.DataFrame(columns)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return path


def hat_file(path: Path, rows: Sequence[Sequence[float]]) -> Path:
    return table_file(path, dict(zip(HAT_COLUMNS, np.array(rows).T, strict=True)))


def lookup_file(path: Path, resolution: int, width: float, scale: float = 1.0, leave_out: str = "") -> Path:
    """Write a table of every block of a resolution; a block's latency is its input's channels plus its kernel size."""
    blocks = {}
    for kernel in (3, 5, 7):
        for expansion in (3, 4, 6):
            for one in blocks_of(resolution, [[(kernel, expansion)] * 4] * 5, width):
                blocks[
                    f"expanded_conv-input:{one.size}x{one.size}x{one.in_channels}"
                    f"-output:{one.out_size}x{one.out_size}x{one.out_channels}-expand:{one.middle_channels}"
                    f"-kernel:{one.kernel}-stride:{one.stride}-idskip:{int(one.has_identity)}-se:{int(one.has_se)}"
                    f"-hs:{int(one.has_hswish)}"
                ] = one.in_channels + one.kernel
                small = one.out_size
    stem, *_, last, final, mixed = widths(width)
    blocks |= {
        f"Conv-input:{resolution}x{resolution}x3-output:{resolution // 2}x{resolution // 2}x{stem}": 1,
        f"Conv_1-input:{small}x{small}x{last}-output:{small}x{small}x{final}": 2,
        f"AvgPool2D-input:{small}x{small}x{final}-output:1x1x{final}": 3,
        f"Conv_2-input:1x1x{final}-output:1x1x{mixed}": 4,
        f"Logits-input:1x1x{mixed}-output:1000": 5,
    }
    lines = [
        f"{name}:\n  count: 100\n  mean: {scale * value}\n  std: 0.1"
        for name, value in blocks.items()
        if not leave_out or leave_out not in name
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
