"""Do these contours belong to this image? Frame of reference and geometry decide; UIDs that match settle it."""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from ..errors import InputError, short_uid
from ..geometry import position_tolerance
from ..images.image import Image
from .roi import DrawnROI, References

OTHER_IMAGE = "give contours drawn on this image, or put frame into the column accept"


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
        When the frames of reference differ, or another series is referred to and the contours do not lie on slices.
    """
    refers = roi.refers
    if notes := other_frame(refers, image, accept, _all_else(roi, image)):
        return notes
    if refers.sop_uids & set(image.sop_uids) or (image.uid in refers.series_uids and not refers.sop_uids):
        return ()
    which = f"the contours refer to series {refers.series}, the image is {short_uid(image.uid)}"
    elsewhere = (refers.series_uids or refers.sop_uids) and image.uid not in refers.series_uids and image.sop_uids
    if elsewhere and not (image.frame_of_reference and refers.frame_of_reference) and "frame" not in accept:
        raise InputError(f"{which}, and no FrameOfReferenceUID says that they belong together", OTHER_IMAGE)
    if roi.point is None and (away := _farthest(roi, image)):
        raise InputError(
            f"{which}, and a contour lies {away:.4g} mm off every slice", "give contours drawn on this image"
        )
    return ("no image that the contours refer to is here; they lie on this series' slices and are used by geometry",)


def _all_else(roi: DrawnROI, image: Image) -> str:
    """What speaks for the image although the frame of reference is another one; empty when anything speaks against."""
    ours = roi.refers.sop_uids <= set(image.sop_uids) and (roi.refers.sop_uids or image.uid in roi.refers.series_uids)
    if not ours or roi.point is not None or _farthest(roi, image):
        return ""
    return ", although they refer to this very series and every contour lies on one of its slices"


def _farthest(roi: DrawnROI, image: Image) -> float:
    """Largest distance in mm of a contour from its nearest slice; 0 when all lie on slices but for rounding."""
    positions = image.stack.positions
    z = np.array([image.stack.to_stack(contour)[:, 2].mean() for contour in roi.contours])
    away = float(np.abs(z[:, None] - positions).min(axis=1).max())
    spacing = float(np.median(np.diff(positions)))
    return away if away > position_tolerance(spacing) else 0.0
