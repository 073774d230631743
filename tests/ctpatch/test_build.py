"""Same bytes whatever the order, the workers and the interruptions; nothing half-done under a final name."""

import hashlib
import random
import re
import shutil
import stat
import subprocess
import sys
import threading
import zlib
from collections import Counter

import cohort
import h5py
import numpy as np
import pytest
import synthetic

import ctpatch.build.one_lesion
from ctpatch.build.one_lesion import cut_lesion
from ctpatch.build.run import BuildOptions, build
from ctpatch.errors import InputError, Problems
from ctpatch.manifest import Row
from ctpatch.manifest.split import assign_splits
from ctpatch.phantom import write_phantom
from ctpatch.recipe import Recipe
from ctpatch.store import open_store
from ctpatch.store.verify import verify_store

SMALL = Recipe(patches=3, augment=1, rgb=False)
OPTIONS = BuildOptions(SMALL)
SPLITS = ("train", "train", "val", "test", "train")


def rows_of(manifest):
    header, *rows = manifest.read_text(encoding="utf-8").splitlines()
    return header, rows


def parts_of(out):
    return out.with_name(f"{out.name}.parts")


class Stop(Exception):
    """An interruption."""


def stop_after(lesions):
    def progress(done, total, word):
        if done == lesions:
            raise Stop

    return progress


# -- Same bytes ---------------------------------------------------------------------------------------------------


def test_threads_that_share_a_lesion_change_no_byte(tmp_path, monkeypatch):
    manifest = cohort.write_cohort(tmp_path / "cohort", ("train",))
    stores = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        build(manifest, tmp_path / "o.h5", BuildOptions(Recipe(patches=35, augment=1)))
        stores.append((tmp_path / "o.h5").read_bytes())
    assert stores[0] == stores[1]
    with open_store(tmp_path / "o.h5") as store:
        assert verify_store(store.file) == []
        rgb, told = store.file["train/rgb"], store.file["train/rgb"].attrs["sha256"].decode()
        assert hashlib.sha256(rgb[...].tobytes()).hexdigest() == told


def test_nothing_but_the_store_is_left(manifest, plain, tmp_path):
    result = build(manifest, tmp_path / "o.h5", OPTIONS)
    assert (tmp_path / "o.h5").read_bytes() == plain
    assert [path.name for path in tmp_path.iterdir()] == ["o.h5"]
    assert (result.lesions, result.computed, result.skipped) == (10, 10, ())
    assert result.patches == {"train": 36, "val": 2, "test": 2}
    assert stat.S_IMODE(result.path.stat().st_mode) == 0o600
    with open_store(result.path) as store:
        assert verify_store(store.file) == []


def test_any_order_of_rows(manifest, plain, tmp_path):
    header, rows = rows_of(manifest)
    random.Random(4).shuffle(rows)
    other = manifest.with_name("shuffled.csv")
    other.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    build(other, tmp_path / "o.h5", OPTIONS)
    assert (tmp_path / "o.h5").read_bytes() == plain


def test_any_order_of_columns_and_any_folder(manifest, plain, tmp_path):
    moved = shutil.copytree(manifest.parent, tmp_path / "else where")
    cells = [line.split(",")[::-1] for line in manifest.read_text(encoding="utf-8").splitlines()]
    (moved / "manifest.csv").write_text("\n".join(",".join(row) for row in cells), encoding="utf-8")
    build(moved / "manifest.csv", tmp_path / "other name.h5", OPTIONS)
    assert (tmp_path / "other name.h5").read_bytes() == plain


def test_any_file_names(manifest, plain, tmp_path):
    """The same slices under shuffled names; InstanceNumber shuffled with them."""
    named = cohort.write_cohort(tmp_path / "named", SPLITS, lesions=2, shuffle=11)
    assert {p.name for p in (tmp_path / "named/P00/ct").iterdir()} == {
        p.name for p in (manifest.parent / "P00/ct").iterdir()
    }
    for k, path in enumerate(sorted((tmp_path / "named/P01/ct").iterdir())):
        path.rename(path.with_name(f"{9 - k} slice"))
    build(named, tmp_path / "o.h5", OPTIONS)
    assert (tmp_path / "o.h5").read_bytes() == plain


def test_a_lesion_is_the_same_whoever_else_is_there(manifest, tmp_path):
    header, rows = rows_of(manifest)
    alone = manifest.with_name("alone.csv")
    alone.write_text("\n".join([header, *(row for row in rows if row.startswith(("P01,2", "P02,1")))]))
    build(alone, tmp_path / "alone.h5", OPTIONS)
    build(manifest, tmp_path / "all.h5", OPTIONS)
    with open_store(tmp_path / "alone.h5") as one, open_store(tmp_path / "all.h5") as many:
        wanted = many.split("train").lesion[:] == 3
        assert one.split("train").hu[:].shape == (6, 64, 64)
        np.testing.assert_array_equal(one.split("train").hu[:], many.split("train").hu[wanted])
        np.testing.assert_array_equal(one.split("val").hu[:], many.split("val").hu[[0]])


def test_seed_changes_train_patches_only(manifest, tmp_path):
    for seed in (0, 1):
        build(manifest, tmp_path / f"{seed}.h5", BuildOptions(Recipe(seed=seed, patches=3, augment=1, rgb=False)))
    with open_store(tmp_path / "0.h5") as one, open_store(tmp_path / "1.h5") as other:
        assert (one.split("train").hu[:] != other.split("train").hu[:]).any(axis=(1, 2)).mean() > 0.9
        np.testing.assert_array_equal(one.split("test").hu[:], other.split("test").hu[:])


# -- Interrupted and resumed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("lesions", [1, 6, 10])
def test_interrupted_and_resumed(manifest, plain, tmp_path, jobs, lesions):
    out = tmp_path / "o.h5"
    with pytest.raises(Stop):
        build(manifest, out, BuildOptions(SMALL, jobs=jobs), stop_after(lesions))
    assert [path.name for path in tmp_path.iterdir()] == ["o.h5.parts"]
    finished = len(list(parts_of(out).glob("*.part")))
    assert finished >= lesions
    result = build(manifest, out, OPTIONS)
    assert result.computed == 10 - finished
    assert out.read_bytes() == plain
    assert [path.name for path in tmp_path.iterdir()] == ["o.h5"]


def test_interrupted_at_every_lesion(manifest, plain, tmp_path, monkeypatch):
    computed = count_computed(monkeypatch)
    out = tmp_path / "o.h5"
    for lesions in range(1, 11):
        with pytest.raises(Stop):
            build(manifest, out, OPTIONS, stop_after(lesions))
        assert not out.exists()
    build(manifest, out, OPTIONS)
    assert out.read_bytes() == plain
    assert len(computed) == 10
    assert set(computed.values()) == {1}


def count_computed(monkeypatch):
    """How often each lesion is cut in this process."""
    counts = Counter()
    cut = ctpatch.build.one_lesion.cut_lesion

    def counted(plan, *arguments, **options):
        counts[plan.row.patient_id, plan.row.lesion_id] += 1
        return cut(plan, *arguments, **options)

    monkeypatch.setattr(ctpatch.build.one_lesion, "cut_lesion", counted)
    return counts


def run(manifest, out, *more):
    command = [sys.executable, "-m", "ctpatch", "build", "--manifest", manifest, "--out", out, "--patches", "3"]
    return [*map(str, command), "--augment", "1", "--no-rgb", *more]


def test_interrupt_from_the_keyboard(manifest, tmp_path, monkeypatch, capsys):
    from ctpatch.cli import main

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(ctpatch.build.one_lesion, "plan_lesion", interrupted)
    assert main(run(manifest, tmp_path / "o.h5")[3:]) == 1
    assert "finished lesions are kept" in capsys.readouterr().err


# -- Never anything but a complete store --------------------------------------------------------------------------


def test_reader_of_the_old_store_goes_on_reading(manifest, tmp_path):
    out = tmp_path / "o.h5"
    build(manifest, out, OPTIONS)
    with open_store(out) as store:
        before = store.split("train").hu[:]
        build(manifest, out, BuildOptions(Recipe(seed=9, patches=2, rgb=False)))
        np.testing.assert_array_equal(store.split("train").hu[:], before)


# -- Refused ------------------------------------------------------------------------------------------------------


def test_folder_of_out_must_exist(manifest, tmp_path):
    with pytest.raises(InputError, match="folder of --out does not exist"):
        build(manifest, tmp_path / "none" / "o.h5", OPTIONS)


# -- What cannot be used ------------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(tmp_path):
    """P01's ROI name is not in its RTSTRUCT."""
    return cohort.write_cohort(tmp_path / "in", SPLITS, columns=lambda i: {"roi": "tumour"} if i == 1 else {})


def test_stops_at_a_refused_lesion_before_any_is_computed(spoilt, tmp_path):
    with pytest.raises(InputError, match=r"^patient=P01 row=3 P01/rtstruct\.dcm: .*tumour.* Do: ") as error:
        build(spoilt, tmp_path / "o.h5", OPTIONS)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    spoilt.write_text(spoilt.read_text().replace("tumour", "lesion 1"))
    assert build(spoilt, tmp_path / "o.h5", OPTIONS).computed == 5


def test_stops_at_a_lesion_whose_pixels_are_refused_and_keeps_the_others(spoilt, tmp_path, monkeypatch):
    def cut(plan, *arguments, **options):
        if plan.row.patient_id == "P01":
            raise InputError("its pixels are wrong", "mend them", plan.row.image)
        return cut_lesion(plan, *arguments, **options)

    spoilt.write_text(spoilt.read_text().replace("tumour", "lesion 1"))
    monkeypatch.setattr(ctpatch.build.one_lesion, "cut_lesion", cut)
    with pytest.raises(InputError, match=r"^patient=P01 row=3 P01/ct: its pixels are wrong\. Do: mend them\.$"):
        build(spoilt, tmp_path / "o.h5", OPTIONS)
    assert not (tmp_path / "o.h5").exists()
    spoilt.write_text(spoilt.read_text().replace("lesion 1", "tumour"))
    # the manifest changed: what was finished belongs to another
    with pytest.raises(InputError, match="begun with manifest"):
        build(spoilt, tmp_path / "o.h5", OPTIONS)


@pytest.mark.parametrize("jobs", [1, 2])
def test_skips_a_refused_lesion_and_lists_it(spoilt, tmp_path, jobs):
    result = build(spoilt, tmp_path / "o.h5", BuildOptions(SMALL, jobs=jobs, on_error="skip"))
    assert (result.lesions, result.computed) == (4, 4)
    (problem,) = result.skipped
    assert str(problem).startswith("patient=P01 row=3 P01/rtstruct.dcm: ")
    with open_store(tmp_path / "o.h5") as store:
        assert list(store.lesions.patient_id) == ["P00", "P02", "P03", "P04"]
        assert store.split("train").lesion[:].tolist() == [0] * 6 + [3] * 6
        (skipped,) = store.skipped.to_dict("records")
        assert (skipped["patient_id"], skipped["lesion_id"]) == ("P01", "1")
        assert skipped["reason"].startswith("no ROI ")
        assert "tumour" not in skipped["reason"]


def test_skipping_everything_is_no_store(tmp_path):
    manifest = cohort.write_cohort(tmp_path / "in", columns=lambda i: {"roi": "tumour"})
    with pytest.raises(Problems) as error:
        build(manifest, tmp_path / "o.h5", BuildOptions(SMALL, on_error="skip"))
    assert len(str(error.value).splitlines()) == 4
    assert not (tmp_path / "o.h5").exists()


def test_one_patient_under_two_ids_is_refused(tmp_path):
    """The same series, and the same pixels under other identifiers."""
    for seed, says in ((0, "the same series as patient=P00 row=2"), (7, "the same pixels as patient=P00 row=2")):
        folder = tmp_path / str(seed)
        manifest = cohort.write_cohort(folder, ("train", "val", "test"))
        shutil.rmtree(folder / "P01")
        cohort.write_patient(folder / "P01", "P00", seed=0)
        if seed:
            shutil.rmtree(folder / "P01")
            hu = synthetic.texture_hu(cohort.SHAPE, seed=0)
            options = {"spacing": cohort.SPACING, "positions": cohort.POSITIONS, "patient_id": "P01", "seed": seed}
            ct = synthetic.write_series(folder / "P01" / "ct", hu, **options)
            box = [synthetic.rectangle(ct, z, (5.25, 3.25), (14.75, 6.75)) for z in (2, 3, 4)]
            synthetic.write_rtstruct(folder / "P01" / "rtstruct.dcm", {"lesion 1": box}, ct)
        with pytest.raises(InputError, match=f"^patient=P01 row=3 .*{says}"):
            build(manifest, folder / "o.h5", OPTIONS)


# -- Splits, folds, counts ----------------------------------------------------------------------------------------


def test_folds_reuse_lesions_and_test_each_patient_once(tmp_path, monkeypatch):
    computed = count_computed(monkeypatch)
    manifest = cohort.write_cohort(tmp_path / "in", [""] * 8, lesions=1)
    tested = []
    for i in (1, 2, 3, 4):
        out = tmp_path / f"fold{i}.h5"
        result = build(manifest, out, BuildOptions(SMALL, fold=(i, 4)))
        with open_store(out) as store:
            table = store.lesions
            assert verify_store(store.file) == []
            assert store.provenance["fold"] == [i, 4]
        assert set(table.split) <= {"train", "val", "test"}
        tested += list(table.patient_id[table.split == "test"])
        assert result.patches["train"] == 6 * int((table.split == "train").sum())
    assert sorted(tested) == [f"P{i:02d}" for i in range(8)]
    # as training lesion once and as val or test lesion once, whatever the number of folds
    assert max(computed.values()) == 2
    assert build(manifest, tmp_path / "again.h5", BuildOptions(SMALL, fold=(2, 4))).computed == 0
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "fold2.h5").read_bytes()


def test_automatic_split_is_in_the_store(tmp_path):
    manifest = cohort.write_cohort(tmp_path / "in", [""] * 10, labels=("a",))
    result = build(manifest, tmp_path / "o.h5", OPTIONS)
    assert result.patches == {"train": 36, "val": 1, "test": 3}


def test_default_counts_per_lesion(tmp_path):
    manifest = cohort.write_cohort(tmp_path / "in", ("train", "val", "test"))
    result = build(manifest, tmp_path / "o.h5", BuildOptions(Recipe(rgb=False)))
    assert result.patches == {"train": 300, "val": 1, "test": 1}
    with open_store(tmp_path / "o.h5") as store:
        plane, copy = store.split("train").plane[:], store.split("train").copy[:]
        assert np.bincount(copy).tolist() == [100, 100, 100]
        for n in range(3):
            assert np.bincount(plane[copy == n]).tolist() == [34, 33, 33]
        assert list(store.lesions.n_patches) == [300, 1, 1]
        assert store.split("test").plane[:].tolist() == [0]
        assert store.recipe["patches"] == 100
        assert store.recipe["augment"] == 2


@pytest.mark.parametrize(("classes", "wanted"), [((153, 204), 64_200), ((113, 123), 42_300)])
def test_counts_of_the_paper_s_cohorts(classes, wanted):
    """Split logic only: 300 patches a training lesion, within one patient."""
    labels = [label for label, count in zip("ab", classes, strict=True) for _ in range(count)]
    rows = [Row(i + 2, f"{i:03d}", "1", "ct", label=label) for i, label in enumerate(labels)]
    count = Counter(row.split for row in assign_splits(rows, seed=0))
    assert abs(300 * count["train"] - wanted) <= 300
    assert sum(count.values()) == sum(classes)


def test_marked_centre_and_unlabelled_test_rows(tmp_path):
    def columns(i):
        return {"center": "8 6 5", "mask": "", "roi": "", "label": ""} if i == 2 else {}

    manifest = cohort.write_cohort(tmp_path / "in", ("train", "val", "test"), columns=columns)
    build(manifest, tmp_path / "o.h5", OPTIONS)
    with open_store(tmp_path / "o.h5") as store:
        np.testing.assert_allclose(store.split("test").center[:], [[8, 6, 5]])
        assert store.lesions.label[2] == ""
        assert np.isnan(store.lesions.diameter_mm[2])
        (row,) = store.recipe["rows"]
        assert (row["patient_id"], row["lesion_id"], row["accept"], row["center"]) == ("P02", "1", [], [8, 6, 5])


def test_recipe_and_provenance_say_how_to_rebuild(manifest, plain, tmp_path):
    (tmp_path / "o.h5").write_bytes(plain)
    with open_store(tmp_path / "o.h5") as store:
        recipe, provenance = store.recipe, store.provenance
    chosen = {name: recipe[name] for name in Recipe.__dataclass_fields__}
    build(manifest, tmp_path / "again.h5", BuildOptions(Recipe(**chosen)))
    assert (tmp_path / "again.h5").read_bytes() == plain
    assert re.fullmatch("[0-9a-f]{64}", provenance["manifest_sha256"])
    assert not {"jobs", "host", "time", "path", "user"} & set(provenance)


def test_build_runs_in_a_thread(manifest, plain, tmp_path):
    worker = threading.Thread(target=build, args=(manifest, tmp_path / "o.h5", OPTIONS))
    worker.start()
    worker.join()
    assert (tmp_path / "o.h5").read_bytes() == plain


# -- Privacy ------------------------------------------------------------------------------------------------------

TEXT_VRS = {"AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"}
GIVEN = ("SpecificCharacterSet", "Modality", "PhotometricInterpretation", "ImageType", "RescaleType")
TOKEN = "ZQ7XW"


def poison(dataset):
    """Every free text of a data set, and texts that were not there, become unique tokens; returns them."""
    import pydicom

    tokens = []

    def fill(ds, element):
        if element.VR in TEXT_VRS and element.keyword not in (*GIVEN, "ContourGeometricType"):
            tokens.append(f"{TOKEN}{len(tokens):03d}")
            valid = {"DA": "19431207", "TM": "134711", "DT": "19431207134711", "AS": "043Y"}
            element.value = valid.get(element.VR, tokens[-1])

    for keyword in ("InstitutionName", "OperatorsName", "StationName", "PatientComments", "PatientAddress"):
        setattr(dataset, keyword, "x")
    dataset.add(pydicom.DataElement(0x00091010, "LO", "x"))
    dataset.walk(fill)
    return tokens


def poisoned_cohort(folder, roi=""):
    """The demo kind of cohort with every text, path and file name a token."""
    import pydicom

    (folder / "table.csv").parent.mkdir(parents=True)
    (folder / "table.csv").write_text(
        "patient_id,label,split,geometry\n007,a,train,axial\n008,b,val,tilt\n009,a,test,uneven\n010,b,train,oblique\n"
    )
    (folder / f"{TOKEN}table.csv").write_text((folder / "table.csv").read_text())
    written = write_phantom(folder / f"{TOKEN}table.csv", folder / f"{TOKEN}study")
    lines = written.read_text()
    for patient in ("007", "008", "009", "010"):
        home = written.parent / patient
        for path in sorted(home.rglob("*.dcm")):
            ds = pydicom.dcmread(path)
            poison(ds)
            ds.save_as(path.with_name(f"{TOKEN}{path.name}"))
            path.unlink()
        (home / "CT").rename(home / f"{TOKEN}series")
        home.rename(home.with_name(f"{TOKEN}{patient}"))
        ds = pydicom.dcmread(home.with_name(f"{TOKEN}{patient}") / f"{TOKEN}RTSTRUCT.dcm")
        name = ds.StructureSetROISequence[0].ROIName
        assert name.startswith(TOKEN)
        lines = lines.replace(f"{patient}/CT", f"{TOKEN}{patient}/{TOKEN}series")
        lines = lines.replace(f"{patient}/RTSTRUCT", f"{TOKEN}{patient}/{TOKEN}RTSTRUCT")
        lines = lines.replace("Lesion 1", roi or name, 1)
    written.write_text(lines)
    return written


def uids_of(folder):
    import pydicom

    found = set()
    for path in folder.rglob("*.dcm"):
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        found |= {str(e.value) for e in ds.iterall() if e.VR == "UI" and not str(e.value).startswith("1.2.840.10008")}
    return found


def everything_in(store):
    """Bytes of the file, and every dataset and attribute as h5py gives it."""
    pieces = [store.read_bytes()]

    def visit(name, item):
        pieces.extend([name.encode(), *(str(value).encode() for value in item.attrs.values())])
        if isinstance(item, h5py.Dataset):
            pieces.append(item[()].tobytes())

    with h5py.File(store) as root:
        visit("/", root)
        root.visititems(visit)
    return b"\0".join(pieces)


def everything_under(folder):
    """Names and contents of files; zlib streams within inflated too."""
    pieces = []
    for path in folder.rglob("*"):
        pieces.append(path.name.encode())
        if path.is_file():
            pieces.append(path.read_bytes())
    data = b"\0".join(pieces)
    for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", data):
        try:
            pieces.append(zlib.decompressobj().decompress(data[match.start() : match.start() + 2**20]))
        except zlib.error:
            continue
    return b"\0".join(pieces)


def test_no_text_of_a_patient_leaves_its_files(tmp_path):
    manifest = poisoned_cohort(tmp_path / "in")
    out = tmp_path / "o.h5"
    stopped = subprocess.run(
        [sys.executable, "-c", STOP_AT_THE_END, str(manifest), str(out)], capture_output=True, text=True
    )
    assert (stopped.returncode, stopped.stderr) == (0, "stopped\n")
    secrets = [TOKEN.encode(), b"19431207", b"134711", *(uid.encode() for uid in uids_of(manifest.parent))]
    assert len(secrets) > 100
    parts = everything_under(parts_of(out))
    assert len(list(parts_of(out).glob("*.part"))) == 4
    done = subprocess.run(run(manifest, out), capture_output=True, text=True)
    assert done.returncode == 0
    told = (done.stdout + done.stderr).encode()
    store = everything_in(out)
    for secret in secrets:
        assert secret not in parts
        assert secret not in store
        assert secret not in told
    assert b"007" in store  # the manifest's own id is what a store is for


STOP_AT_THE_END = """
import sys
from pathlib import Path
from ctpatch.build.run import BuildOptions, build
from ctpatch.recipe import Recipe

def progress(done, total, word):
    if done == total:
        raise RuntimeError

try:
    build(Path(sys.argv[1]), Path(sys.argv[2]), BuildOptions(Recipe(patches=3, augment=1, rgb=False)), progress)
except RuntimeError:
    print("stopped", file=sys.stderr)
"""


def test_no_text_of_a_patient_enters_a_store_as_a_reason(tmp_path):
    """A row whose ROI is not there: the message may list the ROIs there are, the store must not."""
    manifest = poisoned_cohort(tmp_path / "in")
    lines = manifest.read_text().splitlines()
    lines[1] = re.sub(rf",{TOKEN}\d+$|,{TOKEN}\d+(?=,[^/]*$)", ",elsewhere", lines[1])
    manifest.write_text("\n".join(lines) + "\n")
    result = build(manifest, tmp_path / "o.h5", BuildOptions(SMALL, on_error="skip"))
    assert len(result.skipped) == 1
    assert TOKEN.encode() not in everything_in(tmp_path / "o.h5")


def test_kept_uids_are_series_uids_only(tmp_path):
    manifest = cohort.write_cohort(tmp_path / "in", ("train", "val"))
    build(manifest, tmp_path / "o.h5", BuildOptions(SMALL, keep_uids=True))
    with open_store(tmp_path / "o.h5") as store:
        assert store.lesions.series[0] == synthetic.uid("series", 0, "P00")
        assert store.provenance["keep_uids"] is True
