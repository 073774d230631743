"""A DICOM CT series: found in a folder, checked, ordered along its normal; pixels read slice by slice on demand."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..geometry import (
    ORIENTATION_TOLERANCE_PX,
    POSITION_TOLERANCE_MM,
    POSITION_TOLERANCE_SPACING,
    Floats,
    Frame,
    find_gaps,
    make_frame,
    orthonormal_axes,
)
from .enhanced import read_frames
from .header import Header, read_header
from .image import Box
from .slices import LOSSY, Slice, read_slice

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
_SPLITTERS = (  # what tells two images at one position apart, most telling first
    "TemporalPositionIdentifier",
    "TriggerTime",
    "AcquisitionNumber",
    "AcquisitionTime",
    "ConvolutionKernel",
    "SliceThickness",
    "InstanceNumber",
)


@dataclass(frozen=True, eq=False)
class CTSeries:
    """A CT series (see `ctpatch.images.image.Image`); `slices` are in the frame's order."""

    frame: Frame
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
        data = middle.path.read_bytes()
        return hashlib.sha256(data[max(middle.pixels[0], 0) :]).hexdigest()

    def read_hu(self, box: Box) -> NDArray[np.float32]:
        """HU of a box, float32 (z, y, x)."""
        hu = np.empty(box.shape, np.float32)
        for plane, piece in zip(hu, self.slices[slice(*box.slices)], strict=True):
            plane[...] = piece.read_hu(box.rows, box.columns)
        return hu


@dataclass(frozen=True)
class Folder:
    """The CT headers below a folder by SeriesInstanceUID, and how many other files lie there."""

    path: Path
    series: dict[str, tuple[Header, ...]]
    others: int


def read_folder(path: Path) -> Folder:
    """Read the headers of all files below `path`; what is not a CT image is counted, never read as one.

    Raises
    ------
    InputError
        When a DICOM file is unreadable or cut off, or there is no CT image.
    """
    series: dict[str, list[Header]] = {}
    others = 0
    for file in _files(path):
        header = read_header(file)
        if header is None or header.text("SOPClassUID") not in (CT_IMAGE, *ENHANCED_CT):
            others += 1
            continue
        uid = header.text("SeriesInstanceUID")
        if not uid:
            raise InputError("SeriesInstanceUID is missing", "export the series again from its source", file)
        series.setdefault(uid, []).append(header)
    if not series:
        raise InputError(f"no CT image among {others} files", "give the folder of a DICOM CT series", path)
    return Folder(path, {uid: tuple(series[uid]) for uid in sorted(series)}, others)


def read_series(
    path: Path, series_uid: str = "", referenced: Iterable[str] = (), referenced_sops: Iterable[str] = ()
) -> CTSeries:
    """The CT series of a folder.

    Parameters
    ----------
    path : Path
        A folder; subfolders count.
    series_uid : str
        Which series, when the folder holds several.
    referenced, referenced_sops : iterable of str
        The series and images that the contours refer to: they choose where `series_uid` does not.

    Raises
    ------
    InputError
        When no single coherent stack of CT slices with HU is found.
    """
    folder = read_folder(path)
    headers, notes = choose_series(folder, series_uid, frozenset(referenced), frozenset(referenced_sops))
    if folder.others:
        notes += (f"{folder.others} other files in the folder were left aside",)
    headers, dropped = _drop_copies(headers)
    if dropped:
        notes += (f"{dropped} files are byte-identical copies and count once",)
    headers, localizers = _drop_localizers(headers)
    if localizers:
        notes += (f"{localizers} localizer images in the series were left aside",)
    return _stack(headers, notes, path)


def choose_series(
    folder: Folder, series_uid: str, referenced: frozenset[str], referenced_sops: frozenset[str]
) -> tuple[tuple[Header, ...], tuple[str, ...]]:
    """The headers of the one series meant, and a note where the contours chose it."""
    series = folder.series
    if series_uid and series_uid not in series:
        found = f"no CT series {series_uid} among {_listing(series)}"
        raise InputError(found, "mend series_uid", folder.path)
    if series_uid or len(series) == 1:
        return series[series_uid or next(iter(series))], ()
    by_image = [uid for uid in series if any(h.text("SOPInstanceUID") in referenced_sops for h in series[uid])]
    chosen = [uid for uid in series if uid in referenced] or by_image
    if len(chosen) == 1:
        return series[chosen[0]], (
            f"{len(series)} CT series in the folder; the one that the contours refer to is used",
        )
    raise InputError(f"{len(series)} CT series: {_listing(series)}", "name one in series_uid", folder.path)


def _files(path: Path) -> list[Path]:
    if path.is_file():  # an Enhanced CT image may be named itself
        return [path]
    files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sorted(file for file in files if file.is_file())  # a pipe would hang, a broken link is nobody's slice


def _listing(series: dict[str, tuple[Header, ...]]) -> str:
    def line(uid: str) -> str:
        first = series[uid][0]
        return f"…{uid[-12:]} ({first.text('SeriesDescription') or 'no description'}, {len(series[uid])} images)"

    return "; ".join(line(uid) for uid in series)


def _drop_copies(headers: Sequence[Header]) -> tuple[tuple[Header, ...], int]:
    """Files equal to the last byte count once; one SOPInstanceUID with different bytes is an error."""
    kept: dict[str, Header] = {}
    for header in headers:
        uid = header.text("SOPInstanceUID")
        if not uid:
            raise InputError("SOPInstanceUID is missing", "export the series again from its source", header.path)
        if uid in kept and kept[uid].path.read_bytes() != header.path.read_bytes():
            found = f"SOPInstanceUID …{uid[-12:]} is also in {kept[uid].path.name}, with other content"
            raise InputError(found, "keep the right one of the two files", header.path)
        kept.setdefault(uid, header)
    return tuple(kept.values()), len(headers) - len(kept)


def _drop_localizers(headers: tuple[Header, ...]) -> tuple[tuple[Header, ...], int]:
    images = tuple(h for h in headers if "LOCALIZER" not in h.text("ImageType").upper().split("\\"))
    return (images, len(headers) - len(images)) if images else (headers, 0)


def _stack(headers: tuple[Header, ...], notes: tuple[str, ...], path: Path) -> CTSeries:
    """Slices in order along the normal, with everything that must be alike checked."""
    enhanced = [header for header in headers if header.text("SOPClassUID") in ENHANCED_CT]
    if enhanced and len(headers) > 1:
        found = f"{len(headers)} files in one series with {len(enhanced)} multi-frame ones"
        raise InputError(found, "keep one Enhanced CT file, or the single-frame ones", path)
    _check_rescale(headers if not enhanced else (), path)
    slices = read_frames(enhanced[0]) if enhanced else [read_slice(header) for header in headers]
    _check_alike(slices, path)
    axes = _common_axes(slices, path)
    try:
        frame, order = make_frame(axes, [s.position for s in slices], slices[0].spacing, slices[0].shape)
    except InputError as error:
        raise error.at(where=path) from None
    ordered = tuple(slices[i] for i in order)
    _check_positions(frame, ordered, path)
    return CTSeries(
        frame=frame,
        uid=headers[0].text("SeriesInstanceUID"),
        frame_of_reference=headers[0].text("FrameOfReferenceUID"),
        sop_uids=tuple(piece.header.text("SOPInstanceUID") for piece in ordered),
        slices=ordered,
        notes=notes + tuple(_geometry_notes(frame, ordered)) + tuple(_pixel_notes(ordered)),
    )


def _check_rescale(headers: Sequence[Header], path: Path) -> None:
    lacking = [h for h in headers if not h.text("RescaleSlope") or not h.text("RescaleIntercept")]
    if lacking:
        found = f"RescaleSlope or RescaleIntercept is missing in {len(lacking)} of {len(headers)} images"
        raise InputError(f"{found} ({lacking[0].path.name}), so they are not HU", "export the series again", path)


def _check_alike(slices: Sequence[Slice], path: Path) -> None:
    for what, of in (
        ("size (rows, columns)", lambda s: s.shape),
        ("PixelSpacing", lambda s: tuple(round(v, 5) for v in s.spacing)),
        ("FrameOfReferenceUID", lambda s: s.header.text("FrameOfReferenceUID")),
    ):
        counts = Counter(of(piece) for piece in slices)
        if len(counts) > 1:
            (usual, n), *_, (odd, m) = counts.most_common()
            name = next(piece.path.name for piece in slices if of(piece) == odd)
            found = f"{what} {odd} in {m} images ({name}) but {usual} in {n}"
            raise InputError(found, "take out the images that do not belong to the stack", path)


def _common_axes(slices: Sequence[Slice], path: Path) -> Floats:
    """The first slice's axes, once every slice's orientation is shown to be the same but for rounding."""
    normal = orthonormal_axes(slices[0].orientation)[2]
    first = slices[int(np.argmin(np.array([piece.position for piece in slices]) @ normal))]
    axes = orthonormal_axes(first.orientation)
    (row_spacing, column_spacing), (rows, columns) = first.spacing, first.shape
    reach = np.array([columns * column_spacing, rows * row_spacing])
    for piece in slices:
        if piece.orientation == first.orientation:
            continue
        corner = np.abs(reach @ (orthonormal_axes(piece.orientation)[:2] - axes[:2]))
        moved = float(np.linalg.norm(corner)) / min(first.spacing)
        if moved >= ORIENTATION_TOLERANCE_PX:
            found = f"ImageOrientationPatient of {piece.path.name} moves its far corner by {moved:.3g} px"
            raise InputError(found, "take out the images that do not belong to the stack", path)
    return axes


def _check_positions(frame: Frame, slices: Sequence[Slice], path: Path) -> None:
    steps = np.diff(frame.positions)
    tolerance = max(POSITION_TOLERANCE_MM, POSITION_TOLERANCE_SPACING * float(np.median(steps)))
    twins = np.flatnonzero(steps <= tolerance)
    if not len(twins):
        return
    groups = np.split(np.arange(len(slices)), np.flatnonzero(steps > tolerance) + 1)
    sizes = {len(group) for group in groups}
    if len(sizes) == 1:
        found = f"{len(groups)} positions with {sizes.pop()} images each: {_splitting_tag(groups, slices)}"
        raise InputError(found, "give a folder with one of them (a time point, an acquisition)", path)
    a, b = slices[twins[0]], slices[twins[0] + 1]
    differing = [k for k in _SPLITTERS if a.header.text(k) != b.header.text(k)]
    what = ", ".join(f"{k} {a.header.text(k) or 'none'} / {b.header.text(k) or 'none'}" for k in differing)
    found = (
        f"two images at one position, {a.path.name} (SOPInstanceUID …{a.header.text('SOPInstanceUID')[-12:]}) and "
        f"{b.path.name} (…{b.header.text('SOPInstanceUID')[-12:]}): {what or 'only the pixels differ'}"
    )
    raise InputError(found, "keep the right one of the two", path)


def _splitting_tag(groups: Sequence[NDArray[np.intp]], slices: Sequence[Slice]) -> str:
    for keyword in _SPLITTERS:
        counts = Counter(slices[i].header.text(keyword) for group in groups for i in group)
        if all(len({slices[i].header.text(keyword) for i in group}) == len(group) for group in groups):
            shown = ", ".join(f"{value} ({n})" for value, n in sorted(counts.items())[:6])
            return f"{keyword} tells them apart: {shown}"
    return "no time or acquisition tag tells them apart"


def _geometry_notes(frame: Frame, slices: Sequence[Slice]) -> Iterable[str]:
    steps = np.diff(frame.positions)
    typical = float(np.median(steps))
    off = float(np.ptp(steps))
    if off > max(POSITION_TOLERANCE_MM, POSITION_TOLERANCE_SPACING * typical):
        yield f"slice spacing from {steps.min():.4g} to {steps.max():.4g} mm; each slice is used where it lies"
    elif off > 1e-4:
        yield f"slice positions are rounded: spacings differ by up to {off:.2g} mm"
    for gap in find_gaps(frame.positions):
        yield f"a slice is missing: {gap.width:.4g} mm between slices {gap.below + 1} and {gap.below + 2}"
    drift = float(np.abs(frame.offsets[:, :2]).max())
    if drift > POSITION_TOLERANCE_MM:
        yield f"tilted or shifted stack: slices lie up to {drift:.4g} mm aside; each is used where it lies"
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        told = slices[0].header.numbers(keyword, 1)
        if told and abs(abs(told[0]) - typical) > 0.01 * typical:
            yield f"{keyword} says {told[0]:g} mm, the positions {typical:.4g} mm; the positions are used"


def _pixel_notes(slices: Sequence[Slice]) -> Iterable[str]:
    if any(piece.header.text("PhotometricInterpretation") == "MONOCHROME1" for piece in slices):
        yield "PhotometricInterpretation is MONOCHROME1; HU are stored values × rescale all the same"
    if lossy := sum(_is_lossy(piece.header) for piece in slices):
        yield f"{lossy} images went through lossy compression"


def _is_lossy(header: Header) -> bool:
    return header.transfer_syntax in LOSSY or header.text("LossyImageCompression") == "01"
