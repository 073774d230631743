import io

import pytest
import torch
from PIL import Image
from torchvision.models import shufflenetv2
from toystore import write_store

from mtltrain import cases, figures, models


@pytest.fixture(autouse=True)
def _one_thread():
    """The same sums in the same order on every machine, and no quarrel over the cores."""
    torch.set_num_threads(1)


def _blank(figure):
    """A small PNG instead of the figure: drawing takes longer than the smallest training."""
    file = io.BytesIO()
    Image.new("1", (2 * figures.DPI, figures.DPI)).save(file, "PNG")
    return file.getvalue()


def _shallow(weights, progress, repeats, *arguments, build=shufflenetv2._shufflenetv2, **options):
    """A ShuffleNet of three units instead of 16: most of what a step costs is calling one after the other."""
    return build(weights, progress, [1] * len(repeats), *arguments, **options)


@pytest.fixture(scope="module")
def narrow():
    """A shallow ShuffleNet, small FC1 and FC2, blank plots, one thread: quick runs with checkpoints of 1 MB."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shufflenetv2, "_shufflenetv2", _shallow)
        patch.setattr(models, "WIDTH", 64)
        patch.setattr(figures, "png", _blank)
        patch.setattr(figures, "RESAMPLES", 20)
        patch.setattr(cases, "SHOWN", 2)
        yield


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "toy.h5")
