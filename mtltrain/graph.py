"""Training steps as one CUDA graph: launched at once, instead of kernel by kernel.

Written after torch's documented pattern (notes/cuda, "Whole-network capture") where no GPU was at hand, so it is used
only where it is asked for. torch registers the GPU's default generator with a graph, and each replay begins with the
seed and offset that the generator has then: dropout goes on being seeded by (seed, epoch).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3
"""Steps before capture, on a stream of their own: libraries set themselves up, and Adam makes its state. They are steps
of the training like all others."""


class GraphedStep:
    """A step of training, captured for batches of one size; those of another size are stepped kernel by kernel.

    Parameters
    ----------
    step : callable
        Makes a step with a batch, a tensor of indices on the GPU, without waiting for the GPU or making tensors from
        Python's numbers; leaves no gradients behind; its optimiser is `capturable`.
    size : int
        Of the batches to capture.
    """

    def __init__(self, step: Callable[[Tensor], None], size: int):
        self._step, self._batch = step, torch.empty(size, dtype=torch.int64, device="cuda")
        self._side, self._warm = torch.cuda.Stream(), 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Tensor) -> None:
        """Make the step; returns before the GPU has made it."""
        if len(batch) != len(self._batch):
            self._step(batch)
        elif self._warm < WARM_UP:
            self._warm_up(batch)
        else:
            self._batch.copy_(batch)
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph):  # which records the step, and does not make it
                    self._step(self._batch)
            self._graph.replay()

    def _warm_up(self, batch: Tensor) -> None:
        self._warm += 1
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            self._step(batch)
        torch.cuda.current_stream().wait_stream(self._side)
