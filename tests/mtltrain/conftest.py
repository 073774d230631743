import pytest
import torch
from toystore import write_store

from mtltrain import figures, models


@pytest.fixture(autouse=True)
def _one_thread():
    """The same sums in the same order on every machine, and no quarrel over the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def narrow():
    """Small FC1, FC2 and plots, one thread: quick runs with checkpoints of 1 MB."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "WIDTH", 64)
        patch.setattr(figures, "DPI", 30)
        patch.setattr(figures, "RESAMPLES", 20)
        yield


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "toy.h5")
