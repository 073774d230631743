"""What lies in a folder tree: CT series, files of contours, and the rest, counted."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..contours import is_mask, patient_of
from ..dicom.header import Header, read_header
from ..errors import InputError, one_line, relative
from ..images.folder import CT_IMAGE, ENHANCED_CT, is_localizer, is_packed, kind_of


@dataclass(eq=False)
class Series:
    """The CT images with one SeriesInstanceUID.

    Attributes
    ----------
    uid, frame_of_reference : str
    localizer : bool
        Whether all of its images are localizers.
    patient_ids : set of str
        PatientIDs of its images; an empty one where they do not say.
    folders : dict of Path to set of str
        Where its images lie: which of them by SOPInstanceUID.
    sop_uids : set of str
        SOPInstanceUIDs of its images.
    """

    uid: str
    frame_of_reference: str
    localizer: bool = True
    patient_ids: set[str] = field(default_factory=set)
    folders: dict[Path, set[str]] = field(default_factory=dict)
    sop_uids: set[str] = field(default_factory=set)

    def add(self, header: Header) -> None:
        """Take in one of its images."""
        self.patient_ids.add(patient_id(header))
        uid = header.text("SOPInstanceUID")
        self.folders.setdefault(header.path.parent, set()).add(uid)
        self.sop_uids.add(uid)
        self.localizer &= is_localizer(header)

    @property
    def folder(self) -> Path:
        """The innermost folder that holds all of it; of copies the first by name."""
        whole = [folder for folder, uids in self.folders.items() if uids == self.sop_uids]
        return min(whole, default=Path(os.path.commonpath(self.folders)))


@dataclass(frozen=True)
class ContourFile:
    """A file of contours and its PatientID, if any."""

    path: Path
    patient_id: str = ""


@dataclass(eq=False)
class Tree:
    """What lies below the folder `root`: series by SeriesInstanceUID, contours by path, other files by kind."""

    root: Path
    series: dict[str, Series] = field(default_factory=dict)
    contours: list[ContourFile] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def name(self, path: str | Path) -> str:
        """A path as seen from `root`."""
        return relative(path, self.root)

    @cached_property
    def series_below(self) -> Counter[Path]:
        """How many CT series have images in a folder or below it."""
        folders = (({f, *f.parents} for f in series.folders) for series in self.series.values())
        return Counter(folder for sets in folders for folder in set().union(*sets))

    @cached_property
    def patients_below(self) -> dict[Path, set[str]]:
        """The patients whose CT series have images in a folder or below it."""
        found: dict[Path, set[str]] = {}
        for series in self.series.values():
            for folder in {above for f in series.folders for above in (f, *f.parents)}:
                found.setdefault(folder, set()).add(self.patients[series.uid])
        return found

    def patient_beside(self, path: Path) -> str:
        """The patient whose CT series lie nearest to a file, above which there may be others; empty if several's do."""
        nearest = next((self.patients_below[folder] for folder in path.parents if folder in self.patients_below), set())
        return next(iter(nearest)) if len(nearest) == 1 else ""

    @cached_property
    def patients(self) -> dict[str, str]:
        """The patient of each series by SeriesInstanceUID; where the images do not say, the name of their folder."""
        nameless = [series for series in self.series.values() if series.patient_ids == {""}]
        names = Counter(folder.name for folder in {series.folder for series in nameless})
        ids = {series.uid: max(series.patient_ids) for series in self.series.values()}
        for series in nameless:
            name = series.folder.name
            ids[series.uid] = name if names[name] == 1 else self.name(series.folder).replace(os.sep, "/")
        return ids


def find_files(root: Path) -> Tree:
    """Read the header of every file below `root`, in sorted order; links to folders are not followed."""
    tree = Tree(root)

    def unreadable(error: OSError) -> None:
        tree.notes.append(f"unreadable: the folder {tree.name(error.filename)} ({error.strerror})")

    for folder, folders, names in os.walk(root, onerror=unreadable):
        folders.sort()
        tree.others["links to folders, not followed"] += sum(os.path.islink(Path(folder, name)) for name in folders)
        for name in sorted(names):
            _sort_in(Path(folder, name), tree)
    return tree


def differ(uid: str, other: str) -> bool:
    """Two identifiers, both known, that are not the same."""
    return len({uid, other} - {""}) > 1


def same_patient(series: Series, file: ContourFile) -> bool:
    """Whether a series and a file of contours may be one patient's by their PatientIDs."""
    return not any(differ(patient_id, file.patient_id) for patient_id in series.patient_ids)


def patient_id(header: Header) -> str:
    """A PatientID as it may stand in a manifest; empty when it says nothing."""
    return one_line(unicodedata.normalize("NFC", patient_of(header)))


def _sort_in(path: Path, tree: Tree) -> None:
    """Put one file where it belongs."""
    try:
        if not path.is_file():  # a pipe would be waited for without end
            tree.others["no regular files"] += 1
            return
        header = read_header(path)
        if is_mask(path, header):
            tree.contours.append(ContourFile(path, patient_id(header) if header else ""))
        elif header is None:
            what = "compressed files: unpack them first" if is_packed(path) else "neither DICOM nor LIDC-IDRI XML"
            tree.others[what] += 1
        elif header.text("SOPClassUID") in (CT_IMAGE, *ENHANCED_CT) and (uid := header.text("SeriesInstanceUID")):
            tree.series.setdefault(uid, Series(uid, header.text("FrameOfReferenceUID"))).add(header)
        else:
            tree.others[kind_of(header)] += 1
    except InputError as error:
        tree.notes.append(f"unreadable: {error.at(root=tree.root)}")
    except OSError as error:
        tree.notes.append(f"unreadable: {tree.name(path)} ({error.strerror})")
