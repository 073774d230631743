"""The paper's equations 1 to 3, with unknown characteristics left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from .data import UNKNOWN

MAJOR_SHARE = 0.7
"""m of equation 1."""


def multitask_loss(
    major: Tensor,
    label: Tensor,
    auxiliary: Sequence[Tensor],
    levels: Tensor,
    weights: Sequence[float],
    class_weights: Tensor | None = None,
) -> Tensor:
    """L = m L_major + (1 - m) L_aux; without auxiliary outputs (a single-task network), L_major alone.

    L_aux = (1/N) sum over lesions n and tasks k of w_k CE_k; what is unknown adds nothing, and N stays the full batch.

    Parameters
    ----------
    major : Tensor, shape (N, classes)
        Logits of the diagnosis.
    label : Tensor, shape (N,)
        Class indices.
    auxiliary : sequence of Tensor, shapes (N, levels of the task)
        Logits of each task.
    levels : Tensor, shape (N, tasks)
        Level indices, -1 where unknown.
    weights : sequence of float
        w_k, |Spearman's r| of each task.
    class_weights : Tensor, shape (classes,), optional
        For `--balanced`: L_major becomes the mean over the batch weighted by these.
    """
    loss = F.cross_entropy(major, label, class_weights)
    if not auxiliary:
        return loss
    shares = [
        weight * F.cross_entropy(logits, levels[:, k], ignore_index=UNKNOWN, reduction="sum")
        for k, (logits, weight) in enumerate(zip(auxiliary, weights, strict=True))
    ]
    return MAJOR_SHARE * loss + (1 - MAJOR_SHARE) * sum(shares[1:], shares[0]) / len(label)
