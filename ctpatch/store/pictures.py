"""A store's patches as a network takes them; the compiled kernel loads when it is first used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..patches.rendering import Rendering


def network_input(hu: NDArray[np.int16], by: Rendering, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Patches rendered and normalised; see `ctpatch.patches.render.network_input`."""
    from ..patches import render  # numba, which those who read only HU need not wait for

    return render.network_input(hu, by, out)
