"""The recipe: every number that shapes a store's pixels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .errors import InputError
from .images.image import AIR, HU_MAX

ALGORITHM = "ctpatch-2"
SIZE = 64
"""Rows and columns of a patch."""
RENDERED_SIZE = 224
WINDOWS = ((-800, -200), (-200, 400), (-1000, 400))
"""(lowest, highest) HU of the R, G and B channel, as in the paper's section 2.3."""


@dataclass(frozen=True)
class Recipe:
    """What may be chosen about the pixels of a store.

    Attributes
    ----------
    seed : int
        Of every random draw, the automatic split's included.
    patches : int
        Patches per training lesion.
    augment : int
        Moved copies of each.
    rotate_deg, shift_mm : float
        Largest rotation and largest shift along each axis of a moved copy, either way.
    spacing_mm : float
        Of the lattice and of patch pixels.
    lidc_consensus : float
        Share of the outlining readers that a voxel of an LIDC-IDRI lesion needs.
    rgb : bool
        Whether the rendered pictures are kept.
    """

    seed: int = 0
    patches: int = 100
    augment: int = 2
    rotate_deg: float = 180.0
    shift_mm: float = 5.0
    spacing_mm: float = 0.5
    lidc_consensus: float = 0.5
    rgb: bool = True

    def __post_init__(self) -> None:
        for name, low, high in (
            ("patches", 1, 10_000),
            ("augment", 0, 255),
            ("rotate_deg", 0, 180),
            ("shift_mm", 0, 1000),
            ("spacing_mm", 0.05, 10),
            ("lidc_consensus", 0.01, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                flag = "--" + name.removesuffix("_mm").removesuffix("_deg").replace("_", "-")
                raise InputError(f"{flag} is {value:g}, outside {low:g} to {high:g}", f"give {flag} within that range")

    def document(self) -> dict[str, Any]:
        """The recipe as it is stored: the choices, and the constants of this version of the algorithm."""
        return {
            **asdict(self),
            "algorithm": ALGORITHM,
            "patch_size": SIZE,
            "planes": ["xy: u=r, v=c", "xz: u=r, v=n", "yz: u=c, v=n"],
            "pixel": "center + t_u*u + t_v*v + s*((b-32)*u' + (a-32)*v'), u' = cos*u + sin*v, v' = -sin*u + cos*v",
            "interpolation": "linear between the two nearest slices at their own positions, bilinear within each",
            "outside_hu": AIR,
            "hu_range": [AIR, HU_MAX],
            "rendering": {
                "size": RENDERED_SIZE,
                "upsampling": "bilinear, half-pixel centres, edges clamped, before windowing",
                "windows_hu": [list(window) for window in WINDOWS],
                "rounding": "half up",
            },
        }


@dataclass(frozen=True)
class BuildOptions:
    """How a store is built.

    Attributes
    ----------
    recipe : Recipe
        What shapes the pixels.
    jobs : int
        Worker processes.
    fold : (int, int) or None
        (i, k): the i-th of k cross-validation splits.
    on_error : {"stop", "skip"}
        What a refused lesion does to the others.
    keep_uids : bool
        Whether series are kept by UID instead of by digest.
    lock : bool
        Whether no other build can write the same store meanwhile; some file systems have no locks.
    scheduler : str
        Address of a Dask scheduler whose workers compute the lesions, in the place of processes of this machine.
    """

    recipe: Recipe = field(default_factory=Recipe)
    jobs: int = 1
    fold: tuple[int, int] | None = None
    on_error: str = "stop"
    keep_uids: bool = False
    lock: bool = True
    scheduler: str = ""
