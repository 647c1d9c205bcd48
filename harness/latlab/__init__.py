"""latlab measures how long neural networks take on your own devices, and predicts the ones it has not measured.

This folder is the package `latlab` itself. Its parts live in folders of their own at the top of the repository
(`search_spaces`, `agents`, `predictors`, `harness`); `package-dir` in pyproject.toml joins them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latlab.harness.active_learning.fitted_predictor import load_predictor as load_predictor
    from latlab.harness.lab import Lab as Lab

    __version__: str

__all__ = ["Lab", "__version__", "load_predictor"]


def __getattr__(name: str) -> Any:
    # Every import of a part runs this module first, exporters' worker processes among them: it must cost nothing.
    if name == "Lab":
        from latlab.harness.lab import Lab

        return Lab
    if name == "load_predictor":
        from latlab.harness.active_learning.fitted_predictor import load_predictor

        return load_predictor
    if name == "__version__":
        from importlib.metadata import version

        return version("latlab")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
