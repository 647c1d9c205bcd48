"""The names of the encodings."""

from __future__ import annotations

from latlab.search_spaces import SearchSpace

__all__ = ["ENCODINGS", "PROXIES", "check_encoding", "check_proxies", "runs_networks"]

ENCODINGS = ("totals", "costs", "zcp", "arch2vec", "cate", "caz")
"""`totals`: four analytic costs; `costs`: costs by class of operator; `zcp`: the thirteen zero-cost proxies; `caz`:
CATE, Arch2Vec and ZCP side by side."""
PROXIES = (
    "epe_nas", "fisher", "flops", "grad_norm", "grasp", "jacov", "l2_norm",
    "nwot", "params", "plain", "snip", "synflow", "zen",
)  # fmt: skip
"""Names of the zero-cost proxies, in alphabetical order, which is that of their columns."""
RUNNING = ("zcp", "caz")
"""Encodings that build and run networks, which takes about a second each."""


def check_encoding(name: str) -> None:
    """Raise `ValueError` if there is no encoding of this name."""
    if name not in ENCODINGS:
        raise ValueError(f"unknown encoding {name!r}; there are: {', '.join(ENCODINGS)}")


def check_proxies(space: SearchSpace) -> None:
    """Raise `ValueError` if a space has no zero-cost proxies."""
    if not space.buildable:
        raise ValueError(f"{space.name} has no networks to build, so it has no zero-cost proxies")
    if space.autoregressive:
        raise ValueError(
            f"{space.name} has no zero-cost proxies: its networks choose tokens, and no gradient passes a choice"
        )


def runs_networks(name: str) -> bool:
    """Return whether an encoding builds and runs each network, so that thousands take hours."""
    return name in RUNNING
