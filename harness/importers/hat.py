"""The latency tables of Hardware-Aware Transformers (HAT): an encoder's and a decoder's milliseconds per row.

A row describes a network by averages over its layers. Encoders and decoders are separate spaces, because HAT times
them separately; a decoder's latency may depend on the encoder only through its width. Different networks with the same
averages become one, with their mean latency. Whole Transformers (`hat`), whose latency is the sum of both, are read
where that space is asked for.
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
_LATENCIES = ("latency_mean_encoder", "latency_mean_decoder")
_ENCODER = (
    ("encoder_embed_dim", None),
    ("encoder_ffn_embed_dim_avg", "encoder_layer_num"),
    ("encoder_self_attention_heads_avg", "encoder_layer_num"),
)
_DECODER = (
    ("decoder_embed_dim", None),
    ("decoder_layer_num", None),
    ("decoder_ffn_embed_dim_avg", "decoder_layer_num"),
    ("decoder_self_attention_heads_avg", "decoder_layer_num"),
    ("decoder_ende_attention_heads_avg", "decoder_layer_num"),
    ("decoder_arbitrary_ende_attn_avg", "decoder_layer_num"),
)
SPACES = {
    "hat-encoder": (_LATENCIES[:1], _ENCODER),
    "hat-decoder": (_LATENCIES[1:], (_ENCODER[0], *_DECODER)),
    "hat": (_LATENCIES, (*_ENCODER, *_DECODER)),
}
"""The latency columns, which are added up, and the genes' columns of each space.

In a column with a second name, the table has an average over the layers, whose number is in that other column: the
gene is the product.
"""


def is_hat(columns: Sequence[str]) -> bool:
    """Return whether a table's columns are those of HAT's tables."""
    return all(latency in columns for latency in _LATENCIES)


def hat_columns(grid: Grid, device: str, given: str | None) -> list[Column]:
    """Return the latencies of the encoders and of the decoders, or of the space `given` only, which may be `hat`.

    Raises:
        BadInputError: naming the row and the column that is wrong.
    """
    if given is not None and given not in SPACES:
        raise BadInputError(f"{grid.name}: HAT's tables are of {', '.join(SPACES)}, not of {given}")
    found = []
    for name in (given,) if given else ("hat-encoder", "hat-decoder"):
        latencies, fields = SPACES[name]
        needed = [*latencies, *(one for field in fields for one in field if one)]
        missing = [column for column in needed if column not in grid.columns]
        if missing:
            raise BadInputError(f"{grid.name}: the column {missing[0]} is missing", "HAT's tables have fourteen.")

        def numbers(column: str) -> np.ndarray:
            return as_numbers(grid.columns[column], grid.where, column, grid.name)

        values = np.stack([numbers(column) * (numbers(depth) if depth else 1) for column, depth in fields], axis=1)
        whole = np.round(values)
        odd = np.argwhere(~(np.abs(values - whole) < 0.01))
        if len(odd):
            row, column = odd[0]
            average, depth = fields[column]
            over = f"an average over {numbers(depth)[row]:g} layers" if depth else "a whole number"
            raise BadInputError(f"{grid.name}, {grid.where[row]}: {average} is not {over}")
        space = space_named(name)
        archs: list[Architecture] = []
        for row, genes in enumerate(whole.astype(np.int64)):
            try:
                archs.append(space.from_genes([int(one) for one in genes]))
            except ArchitectureError as error:
                raise BadInputError(f"{grid.name}, {grid.where[row]}: {error}") from error
        labels = np.sum([numbers(column) for column in latencies], axis=0)
        found.append(Column(device, rows_of(space, archs, grid.where), labels, None))
    return found
