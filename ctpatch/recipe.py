"""The recipe: every number that shapes a store's pixels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .errors import InputError
from .images.image import AIR, HU_MAX

ALGORITHM = "ctpatch-2"
SIZE = 64
"""Rows and columns of a patch."""
RENDERED_SIZE = 224
WINDOWS = ((-800, -200), (-200, 400), (-1000, 400))
"""(lowest, highest) HU of the R, G and B channel, as in the paper's section 2.3."""
ON_ERROR = ("stop", "skip")
"""What a refused lesion may do to the others."""


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
        for choice in fields(self):
            value = _cast(choice.name, getattr(self, choice.name), type(choice.default))
            object.__setattr__(self, choice.name, value)
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
                flag = flag_of(name)
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


def flag_of(name: str) -> str:
    """What a field of `Recipe` is called on the command line."""
    return "--" + name.removesuffix("_mm").removesuffix("_deg").replace("_", "-")


def _cast(name: str, value: Any, kind: type) -> Any:
    """`value` as its field is declared: equal recipes are written alike, and always as JSON."""
    try:
        cast = kind(value)
        if cast == value or cast != cast:  # NaN is told with the range
            return cast
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"{name} of the recipe is {value!r:.80}", f"give {name} as {kind.__name__}")


def check_fold(fold: Any, told: str = "") -> None:
    """Refuse what is neither None nor (i, k) with 1 <= i <= k and k >= 2; `told` is how it was said."""
    match fold:
        case None:
            return
        case (int(i), int(k)) if 1 <= i <= k and k >= 2:
            return
    found = f"--fold {told or repr(fold):.60} is not i/k with 1 <= i <= k and k >= 2"
    raise InputError(found, "give for example --fold 1/5")


def check_jobs(jobs: Any) -> None:
    """Refuse what is no number of worker processes."""
    if not isinstance(jobs, int) or jobs == 0 or jobs < -1:
        raise InputError(f"--jobs is {jobs!r:.40}", "give the number of worker processes, or -1")


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

    def __post_init__(self) -> None:
        check_fold(self.fold)
        check_jobs(self.jobs)
        if self.on_error not in ON_ERROR:
            raise InputError(f"--on-error is {self.on_error!r:.40}", f"give {' or '.join(ON_ERROR)}")
