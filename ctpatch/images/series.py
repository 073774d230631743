"""A DICOM CT series: found in a folder, checked, ordered along its normal; pixels read slice by slice on demand."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dicom.dataset import read_dataset
from ..dicom.header import Header
from ..dicom.pixel_data import LOSSY
from ..errors import InputError, located
from ..geometry import (
    ORIENTATION_TOLERANCE_PX,
    POSITION_TOLERANCE_MM,
    Floats,
    SliceStack,
    find_gaps,
    make_stack,
    orthonormal_axes,
    position_tolerance,
)
from .ct_image import Slice, StoredFormat, read_slice
from .enhanced_ct import check_concatenation, read_frames
from .folder import ENHANCED_CT, choose_series, drop_copies, drop_localizers, join_series, read_folder
from .image import Box, Fault, Person, patient_digest
from .stacks import (
    at_one_position,
    of_acquisition,
    referred,
    refuse_stacks,
    split_by,
    without_doubles,
    without_repeats,
)

TAKE_OUT = "take out the images that do not belong to the stack"
SPACING_TOLERANCE = 1e-5
"""Relative difference of two PixelSpacings that is rounding."""
FIRST_BIRTH = "1905"
"""Birth dates before that (1900-01-01, 0001-01-01) are what de-identification writes for one that is not to be told."""


@dataclass(frozen=True, eq=False)
class CTSeries:
    """A CT series (see `ctpatch.images.image.Image`); `slices` are in the stack's order."""

    stack: SliceStack
    uid: str
    frame_of_reference: str
    sop_uids: tuple[str, ...]
    slices: tuple[Slice, ...]
    notes: tuple[str, ...]
    faults: tuple[Fault, ...] = ()

    @property
    def lossy(self) -> bool:
        """Whether any slice went through lossy compression."""
        return any(_is_lossy(piece.header) for piece in self.slices)

    @property
    def person(self) -> Person:
        """Digests of who the lowest slice is said to be of."""
        said = [self.slices[0].header.text(name).strip() for name in ("PatientID", "PatientBirthDate", "PatientSex")]
        known = all(said) and said[1] >= FIRST_BIRTH and said[2] in ("M", "F")  # O: a sex that is not to be told
        return Person(patient_digest(said[0]), hashlib.sha256("\0".join(said).encode()).hexdigest() if known else "")

    @cached_property
    def content(self) -> str:
        """sha256 of the middle slice's pixel data as stored: the same pixels are the same whatever their UIDs."""
        middle = self.slices[len(self.slices) // 2].header
        assert middle.pixels is not None
        start, length = middle.pixels
        if start < 0:  # deflated, big endian: pydicom finds them
            return hashlib.sha256(read_dataset(middle.path, force=True).PixelData).hexdigest()
        data = middle.path.read_bytes()
        return hashlib.sha256(data[start : start + length] if length >= 0 else data[start:]).hexdigest()

    def read_hu(self, box: Box) -> NDArray[np.float32]:
        """HU of a box, float32 (z, y, x)."""
        hu = np.empty(box.shape, np.float32)
        for plane, piece in zip(hu, self.slices[slice(*box.slices)], strict=True):
            plane[...] = piece.read_hu(box.rows, box.columns)
        return hu


def read_series(
    path: Path,
    series_uid: str = "",
    referenced: Iterable[str] = (),
    referenced_sops: Iterable[str] = (),
    accept: Set[str] = frozenset(),
    acquisition: str = "",
) -> CTSeries:
    """The CT series of a folder.

    Parameters
    ----------
    path : Path
        A folder; subfolders count.
    series_uid : str
        Which series, when the folder holds several.
    referenced, referenced_sops : iterable of str
        The series and images that the contours refer to: they choose where `series_uid` does not, and which of
        several stacks in one series.
    accept : set of str
        The row's words: `units` takes values for HU that the header calls something else,
        `padding` keeps pixels that it declares padding, `series` takes slices with a SeriesInstanceUID each as one
        series.
    acquisition : str
        Which of several stacks in the series: an AcquisitionNumber, or a value of what else tells them apart.

    Raises
    ------
    InputError
        When no single coherent stack of CT slices with HU is found.
    """
    folder = read_folder(path)
    sop_uids = frozenset(referenced_sops)
    if "series" in accept:
        headers, notes = join_series(folder)
    else:
        headers, notes = choose_series(folder, series_uid, frozenset(referenced), sop_uids)
    if folder.others:
        notes += (f"{folder.others} other files in the folder were left aside",)
    headers, dropped = drop_copies(headers)
    if dropped:
        notes += (f"{dropped} files are byte-identical copies and count once",)
    headers, localizers = drop_localizers(headers)
    if localizers:
        notes += (f"{localizers} localizer images in the series were left aside",)
    if "units" in accept:
        notes += ("its values are taken for HU whatever the header says; accepted by the manifest",)
    if "padding" in accept:
        notes += ("pixels of the declared padding value are kept as they are; accepted by the manifest",)
    slices = _read_slices(headers, accept, path)
    series = _series(slices, notes, path, acquisition, sop_uids)
    return replace(series, notes=series.notes + _frame_notes(series.slices, accept, path))


def _read_slices(headers: tuple[Header, ...], accept: Set[str], path: Path) -> list[Slice]:
    enhanced = [header for header in headers if header.text("SOPClassUID") in ENHANCED_CT]
    if not enhanced:
        _check_rescale(headers, path)
        return _in_hu([read_slice(header, accept) for header in headers], accept)
    if len(headers) > 1 or headers[0].text("ConcatenationUID"):
        check_concatenation(headers, path)
    return _in_hu([piece for header in enhanced for piece in read_frames(header, accept)], accept)


def _in_hu(slices: list[Slice], accept: Set[str]) -> list[Slice]:
    """The slices, refused where they are HU + 1024 or signed, and RescaleIntercept or the sign was lost on the way."""
    alike: dict[tuple[float, StoredFormat], list[Slice]] = {}
    for piece in slices:
        if piece.intercept == 0 and "units" not in accept:
            alike.setdefault((piece.slope, piece.format), []).append(piece)
    for pieces in alike.values():
        middle = pieces[len(pieces) // 2]
        doubt = None
        with contextlib.suppress(InputError):  # it is damaged: told of where a patch needs it
            doubt = middle.doubt()
        if doubt:
            raise InputError(*doubt, middle.path, kind="units")
    return slices


def _series(
    slices: Sequence[Slice],
    notes: tuple[str, ...],
    path: Path,
    acquisition: str = "",
    sop_uids: frozenset[str] = frozenset(),
) -> CTSeries:
    """Slices as one stack in order along the normal, with everything that must be alike checked.

    Of several stacks that of the row's `acquisition` is meant, or of the images `sop_uids` that contours refer to.
    """
    if acquisition:
        slices, note = of_acquisition(slices, acquisition, path)
        notes += (f"of the series only the {len(slices)} images of {note}, as the manifest says",)
    stack, ordered = _in_order(slices, path)
    groups = at_one_position(stack.positions)
    once = without_repeats(ordered, groups, sop_uids)
    if repeated := len(ordered) - len(once):
        note = f"{repeated} images are there twice, with the same pixels under another UID, and count once"
        return _series(once, (*notes, note), path, sop_uids=sop_uids)
    keyword = split_by(ordered, stack.positions, groups)
    if keyword and (chosen := referred(ordered, keyword, sop_uids)):
        note = f"the series holds several stacks; that of {keyword} {chosen[0].told(keyword)}"
        return _series(chosen, (*notes, f"{note}, which the contours refer to, is used"), path)
    refuse_stacks(ordered, groups, keyword, path)
    faults: tuple[Fault, ...] = ()
    if len(groups) < len(ordered):
        single, faults = without_doubles(ordered, stack.positions, groups, sop_uids, path)
        stack, ordered = _in_order(single, path)
        groups = [[k] for k in range(len(ordered))]
        refuse_stacks(ordered, groups, split_by(ordered, stack.positions, groups), path)
        notes += tuple(f"{fault.error.found}; an error only where patches are cut" for fault in faults)
    return CTSeries(
        stack=stack,
        uid=ordered[0].header.text("SeriesInstanceUID"),
        frame_of_reference=ordered[0].header.text("FrameOfReferenceUID"),
        sop_uids=tuple(piece.header.text("SOPInstanceUID") for piece in ordered),
        slices=tuple(ordered),
        notes=notes + tuple(_geometry_notes(stack, ordered)) + tuple(_pixel_notes(ordered)),
        faults=faults,
    )


def _in_order(slices: Sequence[Slice], path: Path) -> tuple[SliceStack, list[Slice]]:
    """The stack of slices that are alike in all that a stack has one of, and they in its order."""
    lowest = _lowest(slices)
    _check_alike(slices, lowest, path)
    axes = _common_axes(slices, lowest, path)
    with located(path):
        stack, order = make_stack(axes, [s.position for s in slices], lowest.spacing, lowest.shape)
    return stack, [slices[i] for i in order]


def _check_rescale(headers: Sequence[Header], path: Path) -> None:
    lacking = [h for h in headers if not h.text("RescaleSlope") or not h.text("RescaleIntercept")]
    if lacking:
        found = f"RescaleSlope or RescaleIntercept is missing in {len(lacking)} of {len(headers)} images"
        raise InputError(f"{found} ({lacking[0].path.name}), so they are not HU", "export the series again", path)


def _lowest(slices: Sequence[Slice]) -> Slice:
    """The first slice along the normal, whatever the files' order."""
    normal = orthonormal_axes(slices[0].orientation)[2]
    return slices[int(np.argmin(np.array([piece.position for piece in slices]) @ normal))]


def _check_alike(slices: Sequence[Slice], lowest: Slice, path: Path) -> None:
    for what, of in (
        ("size (rows, columns)", lambda s: s.shape),
        ("PixelSpacing", lambda s: lowest.spacing if _near(s.spacing, lowest.spacing) else s.spacing),
    ):
        if found := _differing(what, of, slices):
            raise InputError(found, TAKE_OUT, path)
    if (several := len({piece.header.text("PatientID").strip() for piece in slices} - {""})) > 1:
        found = f"the images of its series have {several} PatientIDs"
        raise InputError(found, "take out those of the other patient", path)


def _differing(what: str, of: Callable[[Slice], Any], slices: Sequence[Slice]) -> str:
    """Which images have another value than most; empty when all have one."""
    counts = Counter(of(piece) for piece in slices)
    if len(counts) == 1:
        return ""
    (usual, n), *_, (odd, m) = counts.most_common()
    name = next(piece.path.name for piece in slices if of(piece) == odd)
    return f"{what} {odd} in {m} images ({name}) but {usual} in {n}"


def _frame_notes(slices: Sequence[Slice], accept: Set[str], path: Path) -> tuple[str, ...]:
    """A note where images differ in FrameOfReferenceUID and the row accepts that; refused where it does not."""
    found = _differing("FrameOfReferenceUID", lambda s: s.header.text("FrameOfReferenceUID"), slices)
    if found and "frame" not in accept:
        do = f"{TAKE_OUT}, or put frame into the column accept if they have the same coordinates"
        raise InputError(found, do, path, kind="frame")
    return ("images of several frames of reference are one stack, as the manifest says",) if found else ()


def _near(spacing: Sequence[float], other: Sequence[float]) -> bool:
    return spacing == other or bool(np.allclose(spacing, other, rtol=SPACING_TOLERANCE, atol=0.0))


def _common_axes(slices: Sequence[Slice], lowest: Slice, path: Path) -> Floats:
    """The lowest slice's axes, once every slice's orientation is shown to be the same but for rounding."""
    axes = orthonormal_axes(lowest.orientation)
    (row_spacing, column_spacing), (rows, columns) = lowest.spacing, lowest.shape
    reach = np.array([columns * column_spacing, rows * row_spacing])
    for piece in slices:
        if piece.orientation == lowest.orientation:
            continue
        corner = np.abs(reach @ (orthonormal_axes(piece.orientation)[:2] - axes[:2]))
        moved = float(np.linalg.norm(corner)) / min(lowest.spacing)
        if moved >= ORIENTATION_TOLERANCE_PX:
            found = f"ImageOrientationPatient of {piece.path.name!r} moves its far corner by {moved:.3g} px"
            raise InputError(found, TAKE_OUT, path)
    return axes


def _geometry_notes(stack: SliceStack, slices: Sequence[Slice]) -> Iterable[str]:
    gaps = find_gaps(stack.positions)
    steps = np.delete(np.diff(stack.positions), [gap.below for gap in gaps])
    typical = float(np.median(steps))
    off = float(np.ptp(steps))
    if off > position_tolerance(typical):
        yield f"slice spacing from {steps.min():.4g} to {steps.max():.4g} mm; each slice is used where it lies"
    elif off > 1e-4:
        yield f"slice positions are rounded: spacings differ by up to {off:.2g} mm"
    yield from map(str, gaps)
    drift = float(np.abs(stack.offsets[:, :2]).max())
    if drift > POSITION_TOLERANCE_MM:
        yield f"tilted or shifted stack: slices lie up to {drift:.4g} mm aside; each is used where it lies"
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        told = slices[0].header.text(keyword)
        with contextlib.suppress(ValueError):  # never used, so it may say anything
            if told and abs(abs(float(told)) - typical) > 0.01 * typical:
                yield f"{keyword} says {float(told):g} mm, the positions {typical:.4g} mm; the positions are used"


def _pixel_notes(slices: Sequence[Slice]) -> Iterable[str]:
    if any(piece.header.text("PhotometricInterpretation") == "MONOCHROME1" for piece in slices):
        yield "PhotometricInterpretation is MONOCHROME1; HU are stored values × rescale all the same"
    if lossy := sum(_is_lossy(piece.header) for piece in slices):
        yield f"{lossy} images went through lossy compression"


def _is_lossy(header: Header) -> bool:
    return header.transfer_syntax in LOSSY or header.text("LossyImageCompression") == "01"
