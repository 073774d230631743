"""Networks on torch's meta device, whose tensors have shapes and no values."""

import contextlib
from unittest import mock

import torch
from torch.nn import init

FILLS = (
    "normal_",
    "trunc_normal_",
    "uniform_",
    "constant_",
    "zeros_",
    "ones_",
    "xavier_uniform_",
    "kaiming_uniform_",
    "kaiming_normal_",
)


@contextlib.contextmanager
def valueless():
    """Nothing is drawn either: there torch does nothing but work out the same shapes again, in Python."""
    undrawn = dict.fromkeys(FILLS, lambda tensor, *args, **kwargs: tensor)
    with torch.device("meta"), mock.patch.multiple(init, **undrawn):
        yield
