"""Networks to send to devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("transport_conformance")

if TYPE_CHECKING:
    from transport_conformance import Model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    from transport_conformance import make_model

    return make_model(tmp_path_factory.mktemp("model") / "products.onnx", 4)


@pytest.fixture(scope="session")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Some tens of milliseconds a run."""
    from transport_conformance import make_model

    return make_model(tmp_path_factory.mktemp("model") / "long.onnx", 400)
