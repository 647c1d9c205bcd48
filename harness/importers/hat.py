"""The latency tables of Hardware-Aware Transformers (HAT): an encoder's and a decoder's milliseconds per row.

A row describes a network by averages over its layers. Encoders and decoders are separate spaces, because HAT times
them separately; a decoder's latency may depend on the encoder only through its width. Different networks with the same
averages become one, with their mean latency.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latlab.harness.architectures import space_named
from latlab.harness.errors import BadInputError
from latlab.harness.importers.grid import Grid, as_numbers
from latlab.harness.importers.source_table import rows_of
from latlab.harness.importers.table_files import Column
from latlab.search_spaces import Architecture, ArchitectureError

__all__ = ["CITATION", "hat_columns", "is_hat"]

CITATION = "Hardware-Aware Transformers (Wang et al., ACL 2020), MIT licence"
SIDES = {
    "hat-encoder": ("latency_mean_encoder", "encoder_layer_num", (
        ("encoder_embed_dim", False),
        ("encoder_ffn_embed_dim_avg", True),
        ("encoder_self_attention_heads_avg", True),
    )),
    "hat-decoder": ("latency_mean_decoder", "decoder_layer_num", (
        ("encoder_embed_dim", False),
        ("decoder_embed_dim", False),
        ("decoder_layer_num", False),
        ("decoder_ffn_embed_dim_avg", True),
        ("decoder_self_attention_heads_avg", True),
        ("decoder_ende_attention_heads_avg", True),
        ("decoder_arbitrary_ende_attn_avg", True),
    )),
}  # fmt: skip
"""The latency column, the depth column and the genes' columns of each space.

In a column marked True, the table has an average over the layers, so the gene is the value times the depth.
"""


def is_hat(columns: Sequence[str]) -> bool:
    """Return whether a table's columns are those of HAT's tables."""
    return all(latency in columns for latency, _, _ in SIDES.values())


def hat_columns(grid: Grid, device: str, given: str | None) -> list[Column]:
    """Return the latencies of the encoders and of the decoders, or of the space `given` only.

    Raises:
        BadInputError: naming the row and the column that is wrong.
    """
    if given is not None and given not in SIDES:
        raise BadInputError(f"{grid.name}: HAT's tables are of {' and '.join(SIDES)}, not of {given}")
    found = []
    for name in (given,) if given else SIDES:
        latency, depth, fields = SIDES[name]
        missing = [column for column in (latency, depth, *(one for one, _ in fields)) if column not in grid.columns]
        if missing:
            raise BadInputError(f"{grid.name}: the column {missing[0]} is missing", "HAT's tables have fourteen.")
        layers = as_numbers(grid.columns[depth], grid.where, depth, grid.name)
        values = np.stack(
            [
                as_numbers(grid.columns[column], grid.where, column, grid.name) * (layers if averaged else 1)
                for column, averaged in fields
            ],
            axis=1,
        )
        whole = np.round(values)
        odd = np.argwhere(~(np.abs(values - whole) < 0.01))
        if len(odd):
            row, column = odd[0]
            raise BadInputError(
                f"{grid.name}, {grid.where[row]}: {fields[column][0]} is not an average over {layers[row]:g} layers"
            )
        space = space_named(name)
        archs: list[Architecture] = []
        for row, genes in enumerate(whole.astype(np.int64)):
            try:
                archs.append(space.from_genes([int(one) for one in genes]))
            except ArchitectureError as error:
                raise BadInputError(f"{grid.name}, {grid.where[row]}: {error}") from error
        labels = as_numbers(grid.columns[latency], grid.where, latency, grid.name)
        found.append(Column(device, rows_of(space, archs, grid.where), labels, None))
    return found
