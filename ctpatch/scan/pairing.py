"""Contours with the CT series they belong to, as rows of a manifest."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..contours import ListedROI, MaskFile, References, open_mask
from ..errors import InputError
from ..images.image import Image
from ..images.series import read_series
from ..lesion.mask import mask_on_image
from .remarks import several, strangers
from .table import COLUMNS, write_rows
from .tree import ContourFile, Series, Tree, differ, find_files, same_patient

OTHER_FRAME = "its frame of reference is not the image's: put frame into the column accept if you know that they agree"
NO_ROI = ListedROI("", References())
_SHOWN = 8
_MENDING = frozenset({"resample", "overlap=union", "readers", "stray", "gap"})
"""What a row may have to accept for an ROI to be used."""
_SCALES = (
    "aux_lobulation, aux_spiculation: in about 100 of the first 399 cases of LIDC-IDRI the sites rated these two on "
    "inconsistent scales (wiki.cancerimagingarchive.net, LIDC-IDRI, Annotation and Markup Issues); which cases was "
    "never published, so the ratings are written as they stand: leave the two columns out if that matters"
)


@dataclass(frozen=True)
class ScanResult:
    """What a scan found.

    Attributes
    ----------
    rows : tuple of dict
        One per lesion, by column; `image` and `mask` are absolute paths, `label` is blank. Lesions of LIDC-IDRI have
        the medians of the readers' characteristics as ``aux_<name>`` but for `malignancy`, from which a label is
        made and which is therefore no characteristic, and the number of `readers`.
    notes : tuple of str
        What was left out, and what deserves a look.
    """

    rows: tuple[dict[str, str], ...]
    notes: tuple[str, ...]


def scan(root: Path) -> ScanResult:
    """Find the CT series below a folder, and the RTSTRUCT, DICOM SEG and LIDC-IDRI contours that belong to them.

    Raises
    ------
    InputError
        When `root` is no folder. What is wrong with single files and lesions is in the notes.
    """
    root = Path(os.path.abspath(root))
    if not root.is_dir():
        raise InputError("there is no such folder", "give the folder to scan", root)
    tree = find_files(root)
    read_image = lru_cache(maxsize=8)(_read_image)  # the contours of one series lie close together
    found = [_pairs(file, tree, read_image) for file in tree.contours]
    used = [(file, series) for file, one in zip(tree.contours, found, strict=True) for series, _ in one.pairs]
    named = {
        file.path: [item.roi for _, item in one.pairs if not item.is_lesion]
        for file, one in zip(tree.contours, found, strict=True)
    }
    rows = [row for one in found for row in one.rows]
    bare = _without_contours(tree, rows)
    notes = [*tree.notes, *(note for one in found for note in one.notes), *strangers(tree, used), *several(named)]
    return ScanResult(_numbered(rows + bare), (*notes, *_summary(tree, rows, bare)))


def write_manifest(result: ScanResult, out: Path) -> None:
    """Write the rows of a scan as a manifest, paths relative to its folder; an existing file is never overwritten."""
    write_rows(result.rows, out)


@dataclass(frozen=True)
class _Found:
    """What one file of contours gave: its rows, the series and ROI of each, and what is to say of it."""

    rows: list[dict[str, str]]
    pairs: list[tuple[Series, ListedROI]]
    notes: list[str]


def _pairs(file: ContourFile, tree: Tree, read_image: Callable[..., Image | InputError]) -> _Found:
    """The ROIs of one file of contours with their series; ROIs of which the same is to say are counted."""
    rows: list[dict[str, str]] = []
    pairs: list[tuple[Series, ListedROI]] = []
    problems: list[InputError] = []
    notes: list[str] = []
    try:
        mask = open_mask(file.path)
        listed = list(mask.rois())
    except InputError as error:
        problems, listed = [error], []
    for item in listed:
        if isinstance(item, str):
            notes.append(item)
        elif isinstance(item, InputError):
            problems.append(item)
        else:
            try:
                series, how = _pair(item.refers, file, tree)
                image = read_image(series.folder, series.uid)
                if isinstance(image, InputError) and image.kind == "two-stacks":  # the contours may choose one
                    image = read_image(series.folder, series.uid, item.refers.sop_uids)
                notes += (*how, *_fit(mask, item, image))
                rows.append(_row(series, tree, str(file.path), item))
                pairs.append((series, item))
            except InputError as error:
                problems.append(error)
    said = Counter(f"{tree.name(file.path)}: {note}" for note in notes)
    said.update(f"left out: {_located(problem, file, tree)}" for problem in problems)
    return _Found(rows, pairs, [note if n == 1 else f"{note} ({n} ROIs)" for note, n in said.items()])


def _without_contours(tree: Tree, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """A row with a blank mask for each CT series that is in no row and could be in one, localizers aside."""
    used = {(row["image"], row["series_uid"]) for row in rows}
    bare = []
    for series in tree.series.values():
        if not series.localizer and _image_cells(series, tree) not in used:
            with contextlib.suppress(InputError):  # it is named among those in no row
                bare.append(_row(series, tree))
    return bare


def _located(problem: InputError, file: ContourFile, tree: Tree) -> str:
    """A problem with the file of contours it keeps out, also where it is the images' fault."""
    text = str(problem.at(where=file.path, root=tree.root))
    return text if problem.where in ("", file.path) else f"{tree.name(file.path)}: {text}"


def _read_image(folder: Path, uid: str, sop_uids: frozenset[str] = frozenset()) -> Image | InputError:
    try:
        return read_series(folder, uid, referenced_sops=sop_uids)
    except InputError as error:
        return error


def _fit(mask: MaskFile, listed: ListedROI, image: Image | InputError) -> tuple[str, ...]:
    """Notes on how an ROI fits an image; what its row has to accept is one of them, what no word mends is refused."""
    if isinstance(image, InputError):
        raise image
    other = differ(listed.refers.frame_of_reference, image.frame_of_reference)
    accept = frozenset({"frame"} if other else ())
    try:
        notes = _read_notes(mask, listed.roi, image, accept)
        return (OTHER_FRAME,) if other else notes
    except InputError as error:
        mending = _MENDING | ({"frame"} if error.kind == "references" else set())
        notes = _read_notes(mask, listed.roi, image, accept | mending)
        return (*((OTHER_FRAME,) if other else notes), f"ROI {listed.roi!r}: {error.found}. Do: {error.do}")


def _read_notes(mask: MaskFile, roi: str, image: Image, accept: frozenset[str]) -> tuple[str, ...]:
    found = mask.read(roi, image, accept)
    mask_on_image(found, image, accept)
    return found.notes


def _pair(refers: References, file: ContourFile, tree: Tree) -> tuple[Series, tuple[str, ...]]:
    """The one series that contours belong to, and how it was told when they do not refer to it.

    Whether it is that of the file's own patient, `remarks.strangers` says.
    """
    every = list(tree.series.values())
    referred = [series for series in every if series.sop_uids & refers.sop_uids]
    if len(referred) != 1:
        referred = [series for series in every if series.uid in refers.series_uids] or referred
    if len(referred) == 1:
        return referred[0], ()
    sharing = [series for series in every if _shares_frame(series, refers, file)]
    if len(sharing) == 1:
        return sharing[0], ("paired with the only CT series of its frame of reference",)
    absent = f"series {refers.series}, not here" if refers.series_uids else "no series"
    told = f"{len(referred)} of the CT series here" if referred else absent
    found = f"it refers to {told}; {len(sharing)} CT series here share its frame of reference"
    raise InputError(found, "add its row to the manifest by hand if you know its series", file.path)


def _shares_frame(series: Series, refers: References, file: ContourFile) -> bool:
    frame = refers.frame_of_reference
    return frame == series.frame_of_reference != "" and same_patient(series, file) and not series.localizer


def _row(series: Series, tree: Tree, mask: str = "", listed: ListedROI = NO_ROI) -> dict[str, str]:
    """The row of an ROI, or of a series without contours."""
    if len(series.patient_ids) > 1:
        found = f"the images of its series have {len(series.patient_ids)} PatientIDs"
        raise InputError(found, "take out those of the other patient", series.folder)
    for path in (str(series.folder), mask):
        if not path.isprintable() or path != path.strip():
            do = "rename what ends in a space or is unprintable"
            raise InputError("a manifest cannot hold this path", do, Path(path))
    image, uid = _image_cells(series, tree)
    cells = (tree.patients[series.uid], image, mask, listed.roi, uid, "", "")
    return dict(zip(COLUMNS, cells, strict=True)) | dict(listed.columns)


def _image_cells(series: Series, tree: Tree) -> tuple[str, str]:
    """`image` and, where that folder holds several CT series, `series_uid`."""
    return str(series.folder), series.uid if tree.series_below[series.folder] > 1 else ""


def _numbered(rows: list[dict[str, str]]) -> tuple[dict[str, str], ...]:
    """The rows by patient, image and mask, each patient's lesions counted from 1.

    ROI names would say more, but lesion ids enter stores, which hold no header text.
    """
    count: Counter[str] = Counter()
    ordered = sorted(rows, key=lambda row: (row["patient_id"], row["image"], row["mask"]))
    for row in ordered:
        count[row["patient_id"]] += 1
        row["lesion_id"] = str(count[row["patient_id"]])
    return tuple(ordered)


def _summary(tree: Tree, rows: list[dict[str, str]], bare: list[dict[str, str]]) -> Iterator[str]:
    masks: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        masks[row["image"], row["series_uid"]].add(tree.name(row["mask"]))
    series = {_image_cells(series, tree): series for _, series in sorted(tree.series.items())}
    for cells, files in sorted(masks.items()):
        place = tree.name(cells[0])
        if "" in series[cells].patient_ids:
            name = tree.patients[series[cells].uid]
            yield f"{place}: PatientID is blank; the folder's name {name!r} is used, mend it if a patient has several"
        if len(files) > 1:
            yield f"{place}: {len(files)} files of contours, keep the rows you mean: {', '.join(sorted(files))}"
    if bare:
        names = sorted(tree.name(row["image"]) for row in bare)
        shown = f"{', '.join(names[:_SHOWN])}{', …' if names[_SHOWN:] else ''}"
        yield f"{len(bare)} CT series without usable contours, a row with a blank mask each: {shown}"
    rest = {(row["image"], row["series_uid"]) for row in bare}
    if unused := [tree.name(cells[0]) for cells in sorted(series) if cells not in masks and cells not in rest]:
        yield f"{len(unused)} CT series in no row: {', '.join(unused[:_SHOWN])}{', …' if unused[_SHOWN:] else ''}"
    if any(row.get("aux_lobulation") or row.get("aux_spiculation") for row in rows):
        yield _SCALES
    if skipped := [f"{n} {kind}" for kind, n in sorted(tree.others.items()) if n]:
        yield f"skipped: {', '.join(skipped)}"
