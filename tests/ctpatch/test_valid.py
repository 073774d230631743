"""Valid but awkward series are never refused: 200 drawn ones, each with several unusual properties at once.

Every one is a linear phantom with a lesion of known voxels, and goes through the real build and check: right to 1 HU,
and the lesion voxel by voxel.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import awkward
import numpy as np
import pydicom
import pytest
import synthetic
from pydicom.dataset import Dataset
from pydicom.uid import UID

COUNT = 200
QUANTISATION_HU = 0.45
"""Half of the coarsest step of stored values: with the store's rounding to whole HU an error stays below 1 HU."""


@dataclass
class Draft:
    """A series and its contours while one property after the other is drawn."""

    rng: np.random.Generator
    options: dict[str, Any] = field(default_factory=dict)
    edits: list[Callable[[Dataset, int], None]] = field(default_factory=list)
    after: list[Callable[[Path, synthetic.Series], None]] = field(default_factory=list)
    contours: dict[str, Any] = field(default_factory=dict)
    cells: dict[str, str] = field(default_factory=dict)
    hole: bool = False
    between: float = 0.0  # how far contours lie from their slices, in spacings
    way: int = 1
    stored: tuple[int, int, bool] = (16, 16, False)  # allocated, stored, signed
    uneven_rescale: bool = False
    padded: bool = False
    enhanced: bool = False

    @property
    def pads(self) -> bool:
        """Whether there is padding: 8 bits have no room for a value that is no tissue's."""
        return self.padded and self.stored[1] > 8

    def edit(self, **elements: Any) -> None:
        self.edits.append(awkward.only(-1, **elements))


Property = Callable[[Draft], None]


def sets(**options: Any) -> Property:
    """A property that is an argument of the series' writer."""
    return lambda draft: draft.options.update(options)


def tags(**elements: Any) -> Property:
    """A property that is some elements of every image, None to leave one out."""

    def change(dataset: Dataset, _: int) -> None:
        for keyword, value in elements.items():
            if value is not None:
                setattr(dataset, keyword, value)
            elif keyword in dataset:
                delattr(dataset, keyword)

    return lambda draft: draft.edits.append(change)


def attributes(**values: Any) -> Property:
    return lambda draft: draft.__dict__.update(values)


def plain(_: Draft) -> None:
    """Nothing unusual."""


# -- Geometry -----------------------------------------------------------------------------------------------------


def oblique(draft: Draft) -> None:
    draft.options["iop"] = synthetic.rotation_iop(tuple(draft.rng.uniform(-60, 60, 3)))


def rounded_orientation(draft: Draft) -> None:
    iop = synthetic.rotation_iop(tuple(draft.rng.uniform(-30, 30, 3)))
    draft.options["iop"] = tuple(np.round(iop, 6))


def orientation_noise(draft: Draft) -> None:
    """Up to 5e-5 in each component of each slice."""

    def edit(dataset: Dataset, _: int) -> None:
        noisy = np.array(dataset.ImageOrientationPatient, float) + draft.rng.uniform(-5e-5, 5e-5, 6)
        dataset.ImageOrientationPatient = [f"{value:.8f}" for value in noisy]

    draft.edits.append(edit)


def jitter(draft: Draft) -> None:
    positions = draft.options["positions"]
    draft.options["positions"] = positions + draft.rng.uniform(-0.004, 0.004, len(positions))


def rounded_positions(draft: Draft) -> None:
    draft.options["positions"] = np.round(np.arange(len(draft.options["positions"])) * 2.6667, 2)


def uneven(draft: Draft) -> None:
    n = len(draft.options["positions"])
    draft.options["positions"] = np.cumsum(draft.rng.uniform(2.2, 3.1, n))


def two_steps(draft: Draft) -> None:
    n = len(draft.options["positions"])
    draft.options["positions"] = np.concatenate([[0], np.cumsum([2.0] * (n // 2) + [4.0] * (n - n // 2 - 1))])


def tilt(draft: Draft) -> None:
    draft.options["shear"] = tuple(draft.rng.uniform(-0.35, 0.35, 2))


def far(draft: Draft) -> None:
    draft.options["origin"] = tuple(draft.rng.uniform(-2000, 2000, 3))


# -- Stored values ------------------------------------------------------------------------------------------------


def bits(allocated: int, stored: int, signed: bool) -> Property:
    return attributes(stored=(allocated, stored, signed))


def eight_bits(draft: Draft) -> None:
    """A small image of odd size, so that each slice's pixel data ends in a byte of padding."""
    draft.options |= {"shape": (11, 21, 23), "spacing": (1.0, 0.9), "positions": 2.0 * np.arange(11)}
    draft.stored = (8, 8, False)


def mixed_syntaxes(draft: Draft) -> None:
    """Half of the slices compressed."""

    def edit(dataset: Dataset, k: int) -> None:
        if k % 2:
            dataset.compress(UID("1.2.840.10008.1.2.5"), generate_instance_uid=False, encoding_plugin="pydicom")

    draft.edits.append(edit)


# -- Files and headers --------------------------------------------------------------------------------------------


def names(name: Callable[[int], str]) -> Property:
    return lambda draft: draft.options.update(names=name)


def deep(draft: Draft) -> None:
    """Files over several folders."""

    def move(_: Path, ct: synthetic.Series) -> None:
        for k, path in enumerate(ct.paths):
            (folder := ct.folder / f"Ordner ü {k % 3}").mkdir(exist_ok=True)
            path.rename(folder / path.name)

    draft.after.append(move)


def copies(draft: Draft) -> None:
    draft.after.append(lambda _, ct: shutil.copytree(ct.folder, ct.folder / "again", copy_function=shutil.copy))


def other_series(draft: Draft) -> None:
    """A second series, with a name that sorts first; the contours or the manifest say which is meant."""

    def write(folder: Path, ct: synthetic.Series) -> None:
        awkward.series(folder, series_uid=synthetic.uid("other"), frame_uid=ct.frame_uid, names=lambda k: f"!{k}")

    draft.after.append(write)


def other_objects(draft: Draft) -> None:
    def write(folder: Path, ct: synthetic.Series) -> None:
        other = pydicom.dcmread(ct.paths[0])
        other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
        other.save_as(ct.folder / "capture.dcm")
        (ct.folder / ".DS_Store").write_bytes(bytes(16))
        (ct.folder / "notes.txt").write_text("nothing")

    draft.after.append(write)


def localizer(draft: Draft) -> None:
    """A coronal overview with the series' own UID."""

    def write(_: Path, ct: synthetic.Series) -> None:
        overview = pydicom.dcmread(ct.paths[0])
        overview.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        overview.SOPInstanceUID = overview.file_meta.MediaStorageSOPInstanceUID = synthetic.uid("overview")
        overview.ImageOrientationPatient = ["0", "0.6", "0.8", "0", "-0.8", "0.6"]
        overview.save_as(ct.folder / "overview.dcm")

    draft.after.append(write)


def icon(draft: Draft) -> None:
    """A small picture with its own PixelData inside every image."""
    item = Dataset()
    item.SamplesPerPixel, item.PhotometricInterpretation, item.Rows, item.Columns = 1, "MONOCHROME2", 8, 8
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 8, 8, 7, 0
    item.PixelData = bytes(range(64))
    item["PixelData"].VR = "OB"
    draft.edit(IconImageSequence=[item])


def private(draft: Draft) -> None:
    """More header than one read takes in."""

    def edit(dataset: Dataset, _: int) -> None:
        block = dataset.private_block(0x0009, "TEST", create=True)
        block.add_new(0x01, "OB", bytes(20000))
        block.add_new(0x02, "LO", "ImagePositionPatient")

    draft.edits.append(edit)


def after_the_pixels(draft: Draft) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.add_new(0xFFFCFFFC, "OB", bytes(128))

    draft.edits.append(edit)


OPTIONAL = dict.fromkeys(
    ("InstanceNumber", "ImageType", "RescaleType", "SeriesNumber", "SeriesDescription", "StudyDate", "Manufacturer")
)
GROUPS: dict[str, dict[str, Property]] = {
    "orientation": {
        "axial": plain,
        "coronal": sets(iop=synthetic.CORONAL),
        "sagittal": sets(iop=synthetic.SAGITTAL),
        "prone": sets(iop=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)),
        "feet first": sets(iop=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
        "oblique": oblique,
        "orientation rounded to 6 decimals": rounded_orientation,
        "noise of the orientation": orientation_noise,
    },
    "stack": {
        "even": plain,
        "jitter of positions": jitter,
        "rounded positions": rounded_positions,
        "uneven spacing": uneven,
        "2 then 4 mm": two_steps,
    },
    "place": {"here": plain, "tilted gantry": tilt, "far from the origin": far},
    "stored values": {
        "16 bits": plain,
        "16 bits signed": bits(16, 16, True),
        "12 bits": bits(16, 12, False),
        "12 bits signed": bits(16, 12, True),
        "13 bits signed": bits(16, 13, True),
        "8 bits, odd length": eight_bits,
    },
    "rescale": {"one": plain, "each slice its own": attributes(uneven_rescale=True)},
    "transfer syntax": {
        "explicit": plain,
        **{name: sets(transfer_syntax=name) for name in synthetic.TRANSFER_SYNTAXES if name != "explicit"},
        "two in one series": mixed_syntaxes,
    },
    "meaning": {
        "MONOCHROME2": plain,
        "MONOCHROME1": tags(PhotometricInterpretation="MONOCHROME1"),
        "padding": attributes(padded=True),
        "Enhanced multi-frame": attributes(enhanced=True),
    },
    "files": {
        "in order": plain,
        "shuffled": lambda draft: draft.options.update(shuffle=int(draft.rng.integers(1000))),
        "names without suffix": names(lambda k: f"IM{k * 7 % 32:03d}"),
        "names that are UIDs": names(lambda k: f"CT.1.2.840.{k * 5 % 32}"),
        "names not ASCII": names(lambda k: f"Schädel 患者 {99 - k}.DCM"),
        "several folders": deep,
        "every file twice": copies,
        "another series": other_series,
        "other objects": other_objects,
        "a localizer": localizer,
    },
    "headers": {
        "usual": plain,
        "optional elements missing": tags(**OPTIONAL),
        "spacing elements that lie": tags(SliceThickness=9, SpacingBetweenSlices=-1.25),
        "equal InstanceNumbers": tags(InstanceNumber=1),
        "an icon with pixels": icon,
        "a long private block": private,
        "elements after the pixels": after_the_pixels,
        "names not ASCII": tags(SpecificCharacterSet="ISO_IR 192", SeriesDescription="Schädel – 頭"),
        "never lossy": tags(LossyImageCompression="00"),
    },
    "contours": {
        "usual": plain,
        "no references": lambda draft: draft.contours.update(references=False),
        "implicit VR": lambda draft: draft.contours.update(transfer_syntax="implicit"),
        "between slices": attributes(between=0.4),
        "the other way round": attributes(way=-1),
        "a hole": attributes(hole=True),
        "re-exported images": lambda draft: draft.contours.update(
            series_uid=synthetic.uid("before"), sop_uids=[synthetic.uid("before", k) for k in range(32)]
        ),
    },
    "row": {
        "train": plain,
        "val": lambda draft: draft.cells.update(split="val"),
        "test": lambda draft: draft.cells.update(split="test"),
        "another case of the ROI's name": lambda draft: draft.cells.update(roi=" gtv ÄRM"),
        "the ROI's number": lambda draft: draft.cells.update(roi="1"),
    },
}


def drawn(seed: int) -> tuple[Draft, dict[str, str]]:
    """A draft, and which property of each group it has. Seed by seed, each group goes through all its properties."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(13, 17)), int(rng.integers(32, 42)), int(rng.integers(32, 42)))
    spacing = tuple(rng.uniform(1.3, 1.8, 2).round(3).tolist())
    step = round(rng.uniform(2.0, 3.5), 2)
    options = {"shape": shape, "spacing": spacing, "positions": step * np.arange(shape[0]), "origin": awkward.ORIGIN}
    draft, chosen = Draft(rng, options), {}
    for number, (group, properties) in enumerate(GROUPS.items()):
        order = np.random.default_rng((number, seed // len(properties))).permutation(len(properties))
        chosen[group] = list(properties)[order[seed % len(properties)]]
    for group in sorted(GROUPS, key=lambda name: name == "stack"):  # after the others have said how many slices
        GROUPS[group][chosen[group]](draft)
    fit(draft)
    return draft, chosen


def fit(draft: Draft) -> None:
    """Leave out what the writers cannot do, or what would leave too few voxels to compare."""
    options = draft.options
    if draft.enhanced:
        draft.stored = (16, 16, False)
    if draft.stored[0] == 8 and options.get("transfer_syntax", "").startswith("jpeg-lossless"):
        options["shape"] = (11, 22, 24)  # gdcm writes no odd length
    if options["shape"][0] == 11 and "shear" in options:
        options["shear"] = tuple(0.3 * np.array(options["shear"]))


def written(folder: Path, draft: Draft) -> synthetic.Series:
    """The series on disk; returns where its valid voxels lie."""
    options = draft.options
    values = awkward.hu(**{key: options[key] for key in ("shape", "spacing", "positions", "origin")} | moved(options))
    options |= {"hu": values, **rescale(draft, values)}
    if draft.enhanced:
        return enhanced(folder, options)
    if draft.pads:
        mask = np.zeros(values.shape, bool)
        mask[:, :, :4] = True
        options |= {"padding_mask": mask, "padding_value": padding_value(draft)}
    allocated, stored, signed = draft.stored
    options |= {"bits_allocated": allocated, "bits_stored": stored, "signed": signed}

    def edit(dataset: Dataset, k: int) -> None:
        for change in draft.edits:
            change(dataset, k)

    ct = awkward.series(folder, edit=edit, **options)
    for change in draft.after:
        change(folder, ct)
    return ct


def moved(options: dict[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("iop", "shear") if key in options}


def rescale(draft: Draft, values: np.ndarray) -> dict[str, Any]:
    """Slopes and intercepts that use most of the stored range; its lowest value is left for padding."""
    _, stored, signed = draft.stored
    levels = 2**stored - 2
    n = len(values)
    spread = draft.rng.uniform(1.0, 1.2, n) if draft.uneven_rescale else np.ones(n)
    low, high = values.min(axis=(1, 2)), values.max(axis=(1, 2))
    if draft.pads:  # padding among the values of tissue is refused
        low = np.full(n, -1000.0)
    if not draft.uneven_rescale:
        low, high = np.full(n, low.min()), np.full(n, high.max())
    slopes = (high - low) / levels * spread
    assert slopes.max() / 2 <= QUANTISATION_HU
    lowest = (-(2 ** (stored - 1)) if signed else 0) + 1
    return {"slope": slopes, "intercept": low - slopes * lowest}


def padding_value(draft: Draft) -> int:
    _, stored, signed = draft.stored
    return -(2 ** (stored - 1)) if signed else 0


def enhanced(folder: Path, options: dict[str, Any]) -> synthetic.Series:
    """One multi-frame file with its frames in any order."""
    order = np.random.default_rng(len(options["positions"])).permutation(len(options["positions"])).tolist()
    keys = ("spacing", "positions", "origin", "iop", "shear", "slope", "intercept")
    places = {key: options[key] for key in keys if key in options}
    return synthetic.write_enhanced(folder / "ct" / "all.dcm", options["hu"], order=order, **places)


def outlined(folder: Path, draft: Draft, ct: synthetic.Series) -> set[tuple[int, int, int]]:
    """Write the contours of a box with or without a hole; returns its voxels."""
    rng, (depth, rows, columns) = draft.rng, ct.shape
    slices = range(depth // 2 - 2, depth // 2 + 2)
    row, column = int(rng.integers(rows // 2 - 4, rows // 2)), int(rng.integers(columns // 2 - 4, columns // 2))
    size = rng.integers(5, 8, 2)
    out = rng.uniform(0.06, 0.94, 4)  # how far each side lies beyond its outermost voxels, in pixels
    low = np.array([column - out[0], row - out[1]])
    high = np.array([column + size[0] - 1 + out[2], row + size[1] - 1 + out[3]])
    paths = []
    for k in slices:
        spacing = np.diff(ct.positions)[k - 1 : k + 1].min()
        dz = draft.between * spacing * rng.choice([-1, 1])
        paths.append(synthetic.rectangle(ct, k, tuple(low), tuple(high), dz)[:: draft.way])
        if draft.hole:
            inner = (column + 0.7, row + 0.7), (column + size[0] - 1.7, row + size[1] - 1.7)
            paths.append(synthetic.rectangle(ct, k, *inner, dz)[:: -draft.way])
    order = rng.permutation(len(paths))
    rois = {"GTV Ärm": [paths[i] for i in order], "lung": []}
    awkward.contours(
        folder, ct, rois, edit=lambda ds: setattr(ds, "SpecificCharacterSet", "ISO_IR 192"), **draft.contours
    )
    voxels = awkward.lesion_voxels(slices, range(row, row + size[1]), range(column, column + size[0]))
    if draft.hole:
        voxels -= awkward.lesion_voxels(
            slices, range(row + 1, row + size[1] - 1), range(column + 1, column + size[0] - 1)
        )
    return voxels


def valid_part(draft: Draft, ct: synthetic.Series) -> synthetic.Series:
    """The series without the columns that are padding, and one more, where the phantom is blended with air."""
    if not draft.pads or draft.enhanced:
        return ct
    start = ct.origins + 5 * ct.spacing[1] * ct.axes[0]
    return replace(ct, origins=start, shape=(*ct.shape[:2], ct.shape[2] - 5))


@pytest.mark.parametrize("seed", range(COUNT))
def test_valid_series(tmp_path: Path, seed: int) -> None:
    draft, chosen = drawn(seed)
    if chosen["files"] == "another series" and not chosen["contours"].startswith("re-exported"):
        draft.contours.pop("references", None)
    ct = written(tmp_path, draft)
    voxels = outlined(tmp_path, draft, ct)
    if chosen["contours"] == "re-exported images":
        draft.cells["series_uid"] = ct.series_uid
    store = awkward.built(tmp_path, **draft.cells)
    awkward.assert_linear(store, valid_part(draft, ct), origin=draft.options["origin"])
    assert awkward.voxels(awkward.plan(tmp_path, **draft.cells).mask) == voxels


def test_every_property_is_drawn_often() -> None:
    chosen = [drawn(seed)[1] for seed in range(COUNT)]
    for group, properties in GROUPS.items():
        for name in properties:
            assert sum(one[group] == name for one in chosen) >= COUNT // len(properties) - 1
