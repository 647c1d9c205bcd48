"""Tests of the flags for inputs."""

from __future__ import annotations

import pytest

from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.load_request import InputRequest
from latlab.harness.transports.benchmark_model.input_flags import input_flags


def test_shapes_and_ranges() -> None:
    ids = InputRequest("ids", (1, 128), "int32", 0, 30521)
    image = InputRequest("serving_default_x:0", (1, 3), "float32")
    assert input_flags([ids, image]) == [
        "--input_layer=ids,serving_default_x:0",
        "--input_layer_shape=1,128:1,3",
        "--input_layer_value_range=ids,0,30521",
    ]


def test_an_input_without_a_name_needs_none() -> None:
    assert input_flags([InputRequest(shape=(1, 3, 32, 32))]) == []


def test_a_name_that_would_be_two() -> None:
    with pytest.raises(AgentError, match="takes no input with the name 'a,b'"):
        input_flags([InputRequest("a,b", (1,))])
