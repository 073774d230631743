"""Multi-task and single-task CNN classifiers trained on a patch store and compared (Fang et al., SPIE 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__version__ = "0.1.0"
__all__ = ["ARCHS", "Settings", "__version__"]

ARCHS = ("mtl-tl", "mtl-ri", "stl-tl", "stl-ri")


@dataclass(frozen=True)
class Settings:
    """What decides the weights of a run, besides its architecture, seed and store; the paper's section 2.3 by default.

    `lr` is that of new layers; `tl_weights` is what identifies the pre-trained weights; `balanced` weights the classes
    by one over their frequency among the training patches; `major_share` is m of equation 1; `chosen_tasks` are the
    auxiliary tasks whatever their p, each with its w_k of equation 3 (None: |Spearman's r|); none of them: those that
    Spearman's test selects.
    """

    backbone: str = "alexnet"
    epochs: int = 100
    patience: int = 10
    batch_size: int = 50
    lr: float = 1e-3
    device: str = "cpu"
    tl_weights: str = ""
    balanced: bool = False
    deterministic: bool = False
    major_share: float = 0.7
    chosen_tasks: Mapping[str, float | None] = field(default_factory=dict)
