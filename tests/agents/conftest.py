import pytest

pytest.register_assert_rewrite("runtime_conformance")
