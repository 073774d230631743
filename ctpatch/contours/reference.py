"""Do these contours belong to this image? Frame of reference and geometry decide; UIDs that match settle it.

Once a contour names an image that is here, each that names any must name one: others are of another series or phase,
or of a slice that is not here.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, short_uid
from ..geometry import POSITION_TOLERANCE_MM, Floats, half_spacings, nearest_slices, position_tolerance
from ..images.image import Image
from .roi import DrawnROI, References

OTHER_IMAGE = "give contours drawn on this image, or put frame into the column accept"
BY_POSITION = "or put frame into the column accept to go by position"


def other_frame(refers: References, image: Image, accept: Set[str], also: str = "") -> tuple[str, ...]:
    """A note when contours or a segmentation have another frame of reference than the image and the row accepts that.

    Raises
    ------
    InputError
        When it does not.
    """
    theirs, ours = refers.frame_of_reference, image.frame_of_reference
    if not ours or not theirs or ours == theirs:
        return ()
    if "frame" not in accept:
        found = f"FrameOfReferenceUID of the contours is {short_uid(theirs)}, of the image {short_uid(ours)}"
        raise InputError(found + also, OTHER_IMAGE, kind="frame")
    return ("the contours' frame of reference is another one; accepted by the manifest",)


def check_reference(roi: DrawnROI, image: Image, accept: Set[str] = frozenset()) -> tuple[str, ...]:
    """Notes where only geometry shows that contours belong to an image, or the row accepts another frame.

    Raises
    ------
    InputError
        When the frames of reference differ, another series is referred to and the contours do not lie on slices, or
        contours name images that are not here, or not where they lie.
    """
    refers, heights = roi.refers, _heights(roi, image)
    away = 0.0 if roi.point is not None else _farthest(heights[:, 1], image)
    notes = other_frame(refers, image, accept, _all_else(roi, image, away))
    if refers.sop_uids & set(image.sop_uids):
        return notes + _check_images(roi, image, heights, accept)
    if notes:
        return notes
    if image.uid in refers.series_uids and not refers.sop_uids:
        return ()
    which = f"the contours refer to series {refers.series}, the image is {short_uid(image.uid)}"
    elsewhere = (refers.series_uids or refers.sop_uids) and image.uid not in refers.series_uids and image.sop_uids
    if elsewhere and not (image.frame_of_reference and refers.frame_of_reference) and "frame" not in accept:
        raise InputError(f"{which}, and no FrameOfReferenceUID says that they belong together", OTHER_IMAGE)
    if away:
        raise InputError(
            f"{which}, and a contour lies {away:.4g} mm off every slice", "give contours drawn on this image"
        )
    return ("no image that the contours refer to is here; they lie on this series' slices and are used by geometry",)


def _check_images(roi: DrawnROI, image: Image, heights: Floats, accept: Set[str]) -> tuple[str, ...]:
    """Refuse contours which name images that are not here, or one elsewhere; a note where the row accepts that."""
    try:
        _refuse_other_images(roi, image, heights)
    except InputError as error:
        if "frame" not in accept:
            raise
        return (f"{error.found}; used by position, accepted by the manifest",)
    return ()


def _refuse_other_images(roi: DrawnROI, image: Image, heights: Floats) -> None:
    positions = image.stack.positions
    reach = np.maximum(*half_spacings(positions)) + POSITION_TOLERANCE_MM
    places: dict[str, list[int]] = {}
    for k, uid in enumerate(image.sop_uids):  # one of a multi-frame image is all its slices'
        places.setdefault(uid, []).append(k)
    absent = 0
    for i in np.flatnonzero(_on_slices(heights[:, 1], image)):
        slices = [k for uid in roi.images[i] for k in places.get(uid, ())]
        away = np.maximum(heights[i, 0] - positions[slices], positions[slices] - heights[i, 2])
        if slices and (away > reach[slices]).all():
            found = f"a contour lies {away.min():.4g} mm from slice {slices[away.argmin()] + 1}, which it refers to"
            raise InputError(found, f"export the contours again, {BY_POSITION}", kind="references")
        absent += bool(roi.images[i]) and not slices
    if absent:
        found = f"{absent} of {len(roi.contours)} contours refer to images that are not among this one's slices"
        do = f"complete the series, take contours of another one out, {BY_POSITION}"
        raise InputError(found, do, kind="references")


def _on_slices(z: Floats, image: Image) -> NDArray[np.bool_]:
    """Which contours lie on slices; of those where one is missing, or there twice, `lesion.mask` says more."""
    here = nearest_slices(image.stack.positions, z)[:, 0] >= 0
    for fault in image.faults:
        here &= (z <= fault.start) | (z >= fault.stop)
    return here


def _all_else(roi: DrawnROI, image: Image, away: float) -> str:
    """What speaks for the image although the frame of reference is another one; empty when anything speaks against."""
    ours = roi.refers.sop_uids <= set(image.sop_uids) and (roi.refers.sop_uids or image.uid in roi.refers.series_uids)
    if not ours or roi.point is not None or away:
        return ""
    return ", although they refer to this very series and every contour lies on one of its slices"


def _farthest(z: Floats, image: Image) -> float:
    """Largest distance in mm of a contour from its nearest slice; 0 when all lie on slices but for rounding."""
    positions = image.stack.positions
    away = float(np.abs(z[:, None] - positions).min(axis=1).max())
    spacing = float(np.median(np.diff(positions)))
    return away if away > position_tolerance(spacing) else 0.0


def _heights(roi: DrawnROI, image: Image) -> Floats:
    """Lowest, mean and highest position of each contour along the image's normal in mm, (n, 3)."""
    z = [image.stack.to_stack(contour)[:, 2] for contour in roi.contours]
    return np.array([(each.min(), each.mean(), each.max()) for each in z])
