"""Multi-task and single-task CNN classifiers trained on a patch store and compared (Fang et al., SPIE 2019)."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
