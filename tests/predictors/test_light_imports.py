"""Search spaces and closed-form predictors work without torch, which takes a second to import and gigabytes to install.

Each check runs in a new process: in this one other tests have imported torch already.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from latlab.predictors import DEFAULT

WITHOUT_TORCH = "assert 'torch' not in sys.modules, [name for name in sys.modules if name.startswith('latlab')]"
SPACES = """
from latlab import search_spaces
for name in search_spaces.names():
    space = search_spaces.get(name)
    archs = space.sample(3, 0)
    space.encode(archs, "one-hot"), space.features(space.genes(archs)), space.layers(archs[0])
    blocks = search_spaces.blocks_of(space)
    blocks and blocks.layers(blocks.sample(1, 0)[0])
"""
PREDICTOR = """
from latlab import predictors, search_spaces
from latlab.predictors.acquisition import choose
space = search_spaces.get("nasbench201")
genes = space.genes(space.sample(60, 0))
source = predictors.SourceDevice("source", genes, 1.0 + genes.sum(axis=1))
predictor = predictors.create("{name}", space)
predictor.pretrain([source])
predictor.adapt(genes[:10], 2.0 + genes[:10].sum(axis=1))
predictor.predict(genes)
choose(predictor, genes[10:], genes, 2)
"""


def run(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{script}\n{WITHOUT_TORCH}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_search_spaces_without_torch() -> None:
    run(SPACES)


@pytest.mark.parametrize("name", [DEFAULT, "ridge", "lookup", "flops", "stacking"])
def test_closed_form_predictors_without_torch(name: str) -> None:
    run(PREDICTOR.format(name=name))
