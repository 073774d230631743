"""A DICOM CT series: found in a folder, checked, ordered along its normal; pixels read slice by slice on demand."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

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
from .ct_image import Slice, read_slice
from .enhanced_ct import read_frames
from .folder import ENHANCED_CT, choose_series, drop_copies, drop_localizers, read_folder
from .image import Box

_SPLITTERS = (  # what tells two images at one position apart, most telling first
    "TemporalPositionIdentifier",
    "TriggerTime",
    "AcquisitionNumber",
    "AcquisitionTime",
    "KVP",
    "ConvolutionKernel",
    "SliceThickness",
    "ImageType",
    "InstanceNumber",
)
_ALTERNATING = ("TemporalPositionIdentifier", "AcquisitionNumber", "KVP", "ConvolutionKernel", "SliceThickness")
"""What is one value in a stack, or one after another: slices whose values alternate are several stacks. Not
AcquisitionTime, which scanners that step write in any order, nor ImageType."""


SPACING_TOLERANCE = 1e-5
"""Relative difference of two PixelSpacings that is rounding."""


@dataclass(frozen=True, eq=False)
class CTSeries:
    """A CT series (see `ctpatch.images.image.Image`); `slices` are in the stack's order."""

    stack: SliceStack
    uid: str
    frame_of_reference: str
    sop_uids: tuple[str, ...]
    slices: tuple[Slice, ...]
    notes: tuple[str, ...]

    @property
    def lossy(self) -> bool:
        """Whether any slice went through lossy compression."""
        return any(_is_lossy(piece.header) for piece in self.slices)

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
        `padding` keeps pixels that it declares padding.

    Raises
    ------
    InputError
        When no single coherent stack of CT slices with HU is found.
    """
    folder = read_folder(path)
    headers, notes = choose_series(folder, series_uid, frozenset(referenced), frozenset(referenced_sops))
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
    return _stack(slices, frozenset(referenced_sops), notes, path)


def _read_slices(headers: tuple[Header, ...], accept: Set[str], path: Path) -> list[Slice]:
    enhanced = [header for header in headers if header.text("SOPClassUID") in ENHANCED_CT]
    if enhanced and len(headers) > 1:
        found = f"{len(headers)} files in one series with {len(enhanced)} multi-frame ones"
        raise InputError(found, "keep one Enhanced CT file, or the single-frame ones", path)
    _check_rescale(headers if not enhanced else (), path)
    return read_frames(enhanced[0], accept) if enhanced else [read_slice(header, accept) for header in headers]


def _stack(slices: Sequence[Slice], referenced: frozenset[str], notes: tuple[str, ...], path: Path) -> CTSeries:
    """Slices in order along the normal, with everything that must be alike checked."""
    lowest = _lowest(slices)
    _check_alike(slices, lowest, path)
    axes = _common_axes(slices, lowest, path)
    with located(path):
        stack, order = make_stack(axes, [s.position for s in slices], lowest.spacing, lowest.shape)
    ordered = tuple(slices[i] for i in order)
    keyword, groups = _splitter(stack, ordered)
    if keyword and (chosen := _referred(ordered, keyword, referenced)):
        value = chosen[0].header.text(keyword)
        note = f"the series holds several stacks; that of {keyword} {value}, which the contours refer to, is used"
        return _stack(chosen, referenced, (*notes, note), path)
    _check_positions(ordered, groups, keyword, path)
    return CTSeries(
        stack=stack,
        uid=lowest.header.text("SeriesInstanceUID"),
        frame_of_reference=lowest.header.text("FrameOfReferenceUID"),
        sop_uids=tuple(piece.header.text("SOPInstanceUID") for piece in ordered),
        slices=ordered,
        notes=notes + tuple(_geometry_notes(stack, ordered)) + tuple(_pixel_notes(ordered)),
    )


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
        ("FrameOfReferenceUID", lambda s: s.header.text("FrameOfReferenceUID")),
    ):
        counts = Counter(of(piece) for piece in slices)
        if len(counts) > 1:
            (usual, n), *_, (odd, m) = counts.most_common()
            name = next(piece.path.name for piece in slices if of(piece) == odd)
            found = f"{what} {odd} in {m} images ({name}) but {usual} in {n}"
            raise InputError(found, "take out the images that do not belong to the stack", path)


def _near(spacing: Sequence[float], other: Sequence[float]) -> bool:
    return bool(np.allclose(spacing, other, rtol=SPACING_TOLERANCE, atol=0.0))


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
            raise InputError(found, "take out the images that do not belong to the stack", path)
    return axes


def _check_positions(slices: Sequence[Slice], groups: Sequence[NDArray[np.intp]], keyword: str, path: Path) -> None:
    """Refuse several images at one position, and stacks that lie within each other; `keyword` tells them apart."""
    twins = next((group for group in groups if len(group) > 1), None)
    if twins is None:
        _check_interleaved(slices, keyword, path)
        return
    sizes = {len(group) for group in groups}
    if len(sizes) == 1:
        found = f"{len(groups)} positions with {sizes.pop()} images each: {_told_apart(keyword, slices)}"
        raise InputError(found, "give a folder with one of them (a time point, an acquisition)", path)
    a, b = slices[twins[0]], slices[twins[1]]
    differing = [k for k in _SPLITTERS if a.header.text(k) != b.header.text(k)]
    what = ", ".join(f"{k} {a.header.text(k) or 'none'} / {b.header.text(k) or 'none'}" for k in differing)
    found = (
        f"two images at one position, {a.path.name!r} (SOPInstanceUID …{a.header.text('SOPInstanceUID')[-12:]}) and "
        f"{b.path.name!r} (…{b.header.text('SOPInstanceUID')[-12:]}): {what or 'only the pixels differ'}"
    )
    raise InputError(found, "keep the right one of the two", path)


def _check_interleaved(slices: Sequence[Slice], keyword: str, path: Path) -> None:
    """Refuse time points or reconstructions whose slices alternate: they are several stacks, not a finer one."""
    if keyword:
        values = Counter(piece.header.text(keyword) for piece in slices)
        shown = ", ".join(f"{value or 'none'!r} ({n})" for value, n in values.most_common(6))
        found = f"stacks of different {keyword} lie within each other: {shown}"
        raise InputError(found, "give a folder with one of them", path, kind="two-stacks")


def _alternating(slices: Sequence[Slice]) -> str:
    """What tells stacks apart whose slices alternate along the normal; empty for one stack, or one after another."""
    for keyword in _ALTERNATING:
        values = [piece.header.text(keyword) for piece in slices]
        changes = sum(a != b for a, b in pairwise(values))
        if changes >= len(set(values)) > 1:
            return keyword
    return ""


def _splitter(stack: SliceStack, slices: Sequence[Slice]) -> tuple[str, list[NDArray[np.intp]]]:
    """What tells whole stacks in one series apart, empty for one; and the slices that share each position."""
    steps = np.diff(stack.positions)
    tolerance = position_tolerance(float(np.median(steps)))
    groups = np.split(np.arange(len(slices)), np.flatnonzero(steps > tolerance) + 1)
    if len(groups) == len(slices):
        return _alternating(slices), groups
    whole = len({len(group) for group in groups}) == 1
    return next((k for k in _SPLITTERS if whole and _tells_apart(k, groups, slices)), ""), groups


def _tells_apart(keyword: str, groups: Sequence[NDArray[np.intp]], slices: Sequence[Slice]) -> bool:
    return all(len({slices[i].header.text(keyword) for i in group}) == len(group) for group in groups)


def _referred(slices: Sequence[Slice], keyword: str, referenced: frozenset[str]) -> list[Slice]:
    """The stack with one value of `keyword`, where all images that the contours refer to have that one."""
    values = {s.header.text(keyword) for s in slices if s.header.text("SOPInstanceUID") in referenced}
    chosen = [s for s in slices if len(values) == 1 and s.header.text(keyword) in values]
    return chosen if 1 < len(chosen) < len(slices) else []


def _told_apart(keyword: str, slices: Sequence[Slice]) -> str:
    if not keyword:
        return "no time or acquisition tag tells them apart"
    counts = Counter(piece.header.text(keyword) for piece in slices)
    shown = ", ".join(f"{value} ({n})" for value, n in sorted(counts.items())[:6])
    return f"{keyword} tells them apart: {shown}"


def _geometry_notes(stack: SliceStack, slices: Sequence[Slice]) -> Iterable[str]:
    steps = np.diff(stack.positions)
    typical = float(np.median(steps))
    off = float(np.ptp(steps))
    if off > position_tolerance(typical):
        yield f"slice spacing from {steps.min():.4g} to {steps.max():.4g} mm; each slice is used where it lies"
    elif off > 1e-4:
        yield f"slice positions are rounded: spacings differ by up to {off:.2g} mm"
    for gap in find_gaps(stack.positions):
        yield str(gap)
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
