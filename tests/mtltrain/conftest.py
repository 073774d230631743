import pytest
import torch
from toystore import write_store


@pytest.fixture(autouse=True)
def _one_thread():
    """The same sums in the same order on every machine, and no quarrel over the cores."""
    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "toy.h5")
