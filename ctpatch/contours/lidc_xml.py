"""What an LIDC-IDRI XML file says: the nodules that each reader marked, as written, and what an outline encloses.

The format is described by the collection's own documents and McNitt-Gray et al., Acad Radiol 14:1464 (2007): one
`readingSession` per reader; in it one `unblindedReadNodule` per nodule, with `characteristics` (nodules ≥ 3 mm only)
and one `roi` per path. `nonNodule` marks are no lesions and are left unread.

An outline traces the outermost pixels that are *not* nodule: a voxel is in when the slice's paths enclose it and none
passes through it; a path with inclusion FALSE cuts out what it encloses and what it passes through. Pixel indices
count from 0 at the centre of the first pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser
from numpy.typing import NDArray

from ..dicom.decimal_string import decimal
from ..errors import InputError, located
from ..geometry import Floats
from ..lesion.raster import Corner, fill

RATINGS = {
    "subtlety": 5,
    "internalStructure": 4,
    "calcification": 6,
    "sphericity": 5,
    "margin": 5,
    "lobulation": 5,
    "spiculation": 5,
    "texture": 5,
    "malignancy": 5,
}
"""The characteristics by their XML names, and the highest level of each; the lowest is 1."""
RULES = ("union", "xor")
"""How paths of one nodule that overlap may combine."""
MAX_BYTES = 50 * 2**20
"""Size of the largest XML file that is read; the collection's own stay below 3 MB."""
MAX_DEPTH = 32
"""Elements within elements; the format has six."""
MAX_INDEX = 65535
"""Largest pixel index: DICOM's Rows and Columns are 16-bit."""
EXPORT_AGAIN = "take the file again from the collection"


@dataclass(frozen=True, eq=False)
class LidcPath:
    """One `roi`: a closed path on one slice.

    Attributes
    ----------
    z : float
        imageZposition: the z of the slice's ImagePositionPatient in mm.
    sop_uid : str
        SOPInstanceUID of the slice; empty when the file does not say.
    inclusion : bool
        False: what the path encloses is cut out of the nodule.
    points : (n, 2) float64
        (column, row) in pixels from the centre of the first one, closed implicitly.
    """

    z: float
    sop_uid: str
    inclusion: bool
    points: Floats


@dataclass(frozen=True, eq=False)
class LidcNodule:
    """One `unblindedReadNodule`: what one reader marked as a nodule.

    Attributes
    ----------
    reader : int
        The reading session, from 0: the same reader within this file, nobody in particular in another.
    name : str
        noduleID.
    ratings : dict of str to str
        The characteristics as written, by their XML names; blank ones left out.
    paths : tuple of LidcPath
        At least one.
    """

    reader: int
    name: str
    ratings: dict[str, str]
    paths: tuple[LidcPath, ...]

    @property
    def outlined(self) -> bool:
        """Whether it was outlined; a nodule < 3 mm is marked by a single point."""
        return any(len(path.points) > 1 for path in self.paths)

    @property
    def mark(self) -> tuple[float, float, float]:
        """Where it is marked: z in mm, row, column of the lowest path's first point."""
        return min((path.z, *path.points[0, ::-1].tolist()) for path in self.paths)

    def __str__(self) -> str:
        return f"nodule {self.name[:40]!r} of reader {self.reader + 1}"


def is_lidc(path: Path) -> bool:
    """Whether the start of a file looks like an LIDC-IDRI message (of CT or of chest radiographs)."""
    with open(path, "rb") as file:
        start = file.read(4096).replace(b"\0", b"")  # UTF-16 too
    return b"<" in start and b"ReadMessage" in start


def parse_lidc(path: Path) -> tuple[str, tuple[LidcNodule, ...]]:
    """The series that the readers saw, and every nodule they marked, in the file's order.

    Returns
    -------
    str
        SeriesInstanceUID; empty when the file does not say.
    tuple of LidcNodule

    Raises
    ------
    InputError
        When the file is missing, too large, no well-formed LIDC-IDRI message about CT, or declares a DTD or entities.
    """
    with located(path):
        root = _root(path)
        return _series_uid(root), tuple(_nodules(root))


def enclosed(paths: Sequence[LidcPath]) -> tuple[Corner, dict[str, NDArray[np.bool_]], int]:
    """What the paths of one nodule enclose on one slice, by each rule, and how many pixels lie in two inclusions.

    A voxel is in when it lies in one more inclusion than exclusions (a ring may hold an island) and on no path. For
    properly nested paths that is the even-odd rule; an exclusion that reaches outside never adds anything. By the rule
    `union` one is in that any inclusion has in and no exclusion cuts out, islands aside; by `xor` the even-odd rule.
    """
    paths = _distinct(paths)
    corner, inside = fill([drawn.points for drawn in paths], rim=False)
    depth = np.zeros(inside.shape, np.int32)
    for drawn in paths:
        own = _within(drawn, corner, inside.shape, rim=False)
        depth += own if drawn.inclusion else -own.astype(np.int32)
    overlap = int((depth > 1).sum())
    masks = {"": inside & (depth == 1)}
    masks["union"] = _union(paths, corner, inside.shape) if overlap else masks[""]
    masks["xor"] = inside if overlap else masks[""]
    return corner, masks, overlap


def _within(drawn: LidcPath, corner: Corner, shape: tuple[int, ...], *, rim: bool) -> NDArray[np.bool_]:
    """What one path encloses, in a box of this corner and shape; what it runs through is in where `rim`."""
    (row, column), own = fill([drawn.points], rim=rim)
    box = np.zeros(shape, np.bool_)
    rows, columns = own.shape
    box[row - corner[0] : row - corner[0] + rows, column - corner[1] : column - corner[1] + columns] = own
    return box


def _union(paths: Sequence[LidcPath], corner: Corner, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    cut = np.zeros(shape, np.bool_)
    for drawn in paths:
        if not drawn.inclusion:
            cut |= _within(drawn, corner, shape, rim=True)
    outer, islands = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for drawn in paths:
        if drawn.inclusion:
            own = _within(drawn, corner, shape, rim=False)
            if (own & ~cut).any():
                outer |= own
            else:
                islands |= own
    return (outer & ~cut) | islands


def _distinct(paths: Sequence[LidcPath]) -> list[LidcPath]:
    """The paths without those that repeat another one, from whichever point and whichever way round."""

    def edges(drawn: LidcPath) -> tuple[bool, tuple[object, ...]]:
        points = [tuple(point) for point in drawn.points.tolist()]
        sides = zip(points, points[1:] + points[:1], strict=True)
        return drawn.inclusion, tuple(sorted(tuple(sorted(side)) for side in sides))

    return list({edges(drawn): drawn for drawn in paths}.values())


def _root(path: Path) -> Element:
    root = _parse(path)
    if not root.tag.endswith("ReadMessage"):
        raise InputError(f"the XML root is {root.tag[:40]!r}, not LidcReadMessage", "give an LIDC-IDRI XML")
    parts = {child.tag for child in root}
    if "CXRreadingSession" in parts and "readingSession" not in parts:
        found = "its readings are of a chest radiograph (CXR), not of CT"
        raise InputError(found, "give the XML file of the CT series")
    return root


def _parse(path: Path) -> Element:
    if not path.is_file():
        raise InputError("there is no such file", "correct the path")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f"the XML file has {size / 2**20:.1f} MB, more than {MAX_BYTES >> 20}", EXPORT_AGAIN)
    try:
        parser = DefusedXMLParser(target=_Shallow(), forbid_dtd=True)
        parser.feed(path.read_bytes())
        return parser.close()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", "mend the file's permissions") from error
    except DefusedXmlException as error:
        kind = type(error).__name__
        raise InputError(f"the XML file declares a DTD or entities ({kind})", EXPORT_AGAIN) from None
    except (ParseError, ValueError, LookupError) as error:  # encodings that expat lacks are no ParseError
        raise InputError(f"not well-formed XML ({error})", EXPORT_AGAIN) from None


class _Shallow(TreeBuilder):
    """Builds a tree without namespaces, no deeper than `MAX_DEPTH`: nesting takes far more memory than the file."""

    depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> Element:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise InputError(f"XML elements are nested deeper than {MAX_DEPTH}", EXPORT_AGAIN)
        return super().start(tag.rpartition("}")[2], attrs)

    def end(self, tag: str) -> Element:
        self.depth -= 1
        return super().end(tag.rpartition("}")[2])


def _series_uid(root: Element) -> str:
    for header in root.findall("ResponseHeader"):
        for child in header:
            if child.tag.casefold() in ("seriesinstanceuid", "ctseriesinstanceuid"):
                return _text(child)
    return ""


def _nodules(root: Element) -> Iterator[LidcNodule]:
    for reader, session in enumerate(root.findall("readingSession")):
        for nodule in session.findall("unblindedReadNodule"):
            name = _child_text(nodule, "noduleID")
            where = f"nodule {name[:40]!r} of reader {reader + 1}"
            try:
                paths = tuple(_path(roi) for roi in nodule.findall("roi"))
                if not paths:
                    raise InputError("no roi", "")
            except InputError as error:
                raise InputError(f"{where}: {error.found}", EXPORT_AGAIN) from None
            yield LidcNodule(reader, name, _ratings(nodule), paths)


def _ratings(nodule: Element) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for characteristics in nodule.findall("characteristics"):
        for item in characteristics:
            if text := _text(item):
                found.setdefault(item.tag, []).append(text)
    return {name: " and ".join(texts) for name, texts in found.items()}


def _path(roi: Element) -> LidcPath:
    inclusion = _child_text(roi, "inclusion").upper()
    if inclusion not in ("TRUE", "FALSE"):
        raise InputError(f"inclusion {inclusion[:40]!r} is neither TRUE nor FALSE", "")
    edges = list(roi.findall("edgeMap"))
    if not edges:
        raise InputError("an roi without edgeMap", "")
    points = np.array([[_number(edge, name) for name in ("xCoord", "yCoord")] for edge in edges])
    if np.abs(points).max() > MAX_INDEX:
        raise InputError(f"an edgeMap coordinate of {np.abs(points).max():g} is no pixel index", "")
    if len(points) > 1 and (points[0] == points[-1]).all():
        points = points[:-1]
    z = _number(roi, "imageZposition")
    return LidcPath(z, _child_text(roi, "imageSOP_UID"), inclusion == "TRUE", points)


def _number(parent: Element, name: str) -> float:
    text = _child_text(parent, name)
    try:
        value = decimal(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{name} {text[:40]!r} is not a number", "")
    return value


def _child_text(parent: Element, name: str) -> str:
    texts = list(dict.fromkeys(_text(child) for child in parent.findall(name)))
    if len(texts) > 1:
        raise InputError(f"{name} is given as {texts[0][:40]!r} and as {texts[1][:40]!r}", EXPORT_AGAIN)
    return texts[0] if texts else ""


def _text(element: Element) -> str:
    return (element.text or "").strip()
