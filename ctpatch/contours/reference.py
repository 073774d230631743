"""Do these contours belong to this image? Frame of reference and geometry decide; UIDs that match settle it."""

from __future__ import annotations

import numpy as np

from ..errors import InputError, short_uid
from ..geometry import position_tolerance
from ..images.image import Image
from .roi import DrawnROI

OTHER_IMAGE = "give contours drawn on this image, or put frame into the column accept"


def other_frame(theirs: str, image: Image, accept_frame: bool) -> tuple[str, ...]:
    """A note when contours or a segmentation have another frame of reference than the image and the row accepts that.

    Raises
    ------
    InputError
        When it does not.
    """
    ours = image.frame_of_reference
    if not ours or not theirs or ours == theirs:
        return ()
    if not accept_frame:
        found = f"FrameOfReferenceUID of the contours is {short_uid(theirs)}, of the image {short_uid(ours)}"
        raise InputError(found, OTHER_IMAGE)
    return ("the contours' frame of reference is another one; accepted by the manifest",)


def check_reference(roi: DrawnROI, image: Image, *, accept_frame: bool = False) -> tuple[str, ...]:
    """Refuse contours of another series; say so where only geometry shows that they belong.

    Parameters
    ----------
    roi : DrawnROI
    image : Image
    accept_frame : bool
        The row accepts another frame of reference.

    Returns
    -------
    tuple of str
        Notes.

    Raises
    ------
    InputError
        When the frames of reference differ, or another series is referred to and the contours do not lie on slices.
    """
    if notes := other_frame(roi.frame_of_reference, image, accept_frame):
        return notes
    if roi.sop_uids & set(image.sop_uids) or (roi.series_uid == image.uid and not roi.sop_uids):
        return ()
    which = f"the contours refer to series {short_uid(roi.series_uid)}, the image is {short_uid(image.uid)}"
    elsewhere = (roi.series_uid or roi.sop_uids) and roi.series_uid != image.uid and image.sop_uids
    if elsewhere and not (image.frame_of_reference and roi.frame_of_reference) and not accept_frame:
        raise InputError(f"{which}, and no FrameOfReferenceUID says that they belong together", OTHER_IMAGE)
    single_point = len(roi.contours) == 1 and len(roi.contours[0]) == 1
    if not single_point and (away := _farthest(roi, image)):
        raise InputError(
            f"{which}, and a contour lies {away:.4g} mm off every slice", "give contours drawn on this image"
        )
    return ("no image that the contours refer to is here; they lie on this series' slices and are used by geometry",)


def _farthest(roi: DrawnROI, image: Image) -> float:
    """Largest distance in mm of a contour from its nearest slice; 0 when all lie on slices but for rounding."""
    positions = image.stack.positions
    z = np.array([image.stack.to_stack(contour)[:, 2].mean() for contour in roi.contours])
    away = float(np.abs(z[:, None] - positions).min(axis=1).max())
    spacing = float(np.median(np.diff(positions)))
    return away if away > position_tolerance(spacing) else 0.0
