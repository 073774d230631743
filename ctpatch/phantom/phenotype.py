"""How what a manifest says of a patient shows in his picture: never exactly."""

from __future__ import annotations

import numpy as np

ABSENT, PRESENT = (0.0, 0.2), (0.6, 1.0)
"""How strongly a sign shows that a reader calls absent, or present."""
SEVERITY_SHARE = 0.6
"""How much of what grows with severity is severity; the rest is the patient's own."""


def sign_strength(level: float, rng: np.random.Generator) -> float:
    """How strongly a sign of `level` 0 to 1 shows; the draws do not depend on the level."""
    absent, present = rng.uniform(*ABSENT), rng.uniform(*PRESENT)
    return float(absent + (present - absent) * level)


def grown(severity: float, count: int, rng: np.random.Generator) -> list[float]:
    """Values 0 to 1 of `count` things that grow with severity, each with its own chance."""
    return (SEVERITY_SHARE * severity + (1 - SEVERITY_SHARE) * rng.random(count)).tolist()
