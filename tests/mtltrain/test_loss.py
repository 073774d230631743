"""Equations 1 to 3 against a case worked out by hand."""

import math

import pytest
import torch

from mtltrain.loss import multitask_loss

MAJOR = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]], dtype=torch.float64)
LABEL = torch.tensor([0, 1])
AUX = [
    torch.tensor([[0.0, 0.0, 0.0], [0.0, math.log(2), 0.0]], dtype=torch.float64),
    torch.tensor([[0.0, math.log(4)], [0.0, 0.0]], dtype=torch.float64),
]


def test_by_hand():
    """p = 1/2 and 1/4 for the major task; 1/3 and 2/4 for task one; 1/5 and unknown for task two."""
    major = (math.log(2) + math.log(4)) / 2
    aux = (0.3 * (math.log(3) + math.log(2)) + 0.2 * math.log(5)) / 2
    loss = multitask_loss(MAJOR, LABEL, AUX, torch.tensor([[0, 0], [1, -1]]), [0.3, 0.2])
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(0.7 * major + 0.3 * aux, rel=1e-14)


def test_nothing_known_adds_nothing():
    loss = multitask_loss(MAJOR, LABEL, AUX, torch.full((2, 2), -1), [0.3, 0.2])
    assert loss.item() == pytest.approx(0.7 * (math.log(2) + math.log(4)) / 2, rel=1e-14)


def test_single_task_is_plain_cross_entropy():
    loss = multitask_loss(MAJOR, LABEL, [], torch.empty(2, 0), [])
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-14)


def test_unknown_levels_have_no_gradient():
    logits = AUX[1].clone().requires_grad_()
    multitask_loss(MAJOR, LABEL, [AUX[0], logits], torch.tensor([[0, 0], [1, -1]]), [0.3, 0.2]).backward()
    assert logits.grad[0].abs().min() > 0
    assert (logits.grad[1] == 0).all()
