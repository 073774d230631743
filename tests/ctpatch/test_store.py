import hashlib
import itertools
import json
import multiprocessing
import operator
import os
import pickle
import signal
import stat
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ctpatch
from ctpatch import CtpatchError, InputError, StoreWriter, open_store
from ctpatch.patches.render import render
from ctpatch.store.disk import Sink
from ctpatch.store.records import Lesion, Patches, as_column, deflate

COUNTS = {"train": 4, "val": 1, "test": 2}
TAILS = {
    "hu": ("<i2", (64, 64)),
    "rgb": ("|u1", (224, 224, 3)),
    "lesion": ("<i4", ()),
    "plane": ("|u1", ()),
    "copy": ("|u1", ()),
    "center": ("<f8", (3,)),
    "angle": ("<f8", ()),
    "shift": ("<f8", (2,)),
}
LESION_TEXT = ("patient_id", "lesion_id", "split", "label", "series")
LESION_NUMBERS = {"n_patches": "<i4", "diameter_mm": "<f8", "n_readers": "<i4"}


def lesions():
    """Arguments of `StoreWriter.add`: two train lesions of one patient, one val and two test patients."""
    rng = np.random.default_rng(5)
    ids = [("007", "1", "train", "T3", 3), ("007", "2", "train", "T4", 1), ("8", "1", "val", "T3", 1)]
    ids += [("Ä", "1", "test", "", 1), ("β", "1", "test", "T4", 1)]
    for n, (patient, lesion, split, label, count) in enumerate(ids):
        yield {
            "patient_id": patient,
            "lesion_id": lesion,
            "split": split,
            "label": label,
            "hu": rng.integers(-1024, 3000, (count, 64, 64)).astype(np.int16),
            "plane": np.arange(count) % 3,
            "copy": np.arange(count),
            "center": rng.normal(size=(count, 3)),
            "angle": rng.uniform(-180, 180, count),
            "shift": rng.normal(size=(count, 2)),
            "aux": {"margin": 5.0} if n % 2 else {},
            "series": hashlib.sha256(patient.encode()).hexdigest(),
            "diameter_mm": 7.5 + n if n else float("nan"),
            "n_readers": n,
        }


def write(path, *, rgb=True, **options):
    aux = {"margin": {1: "poor", 5: "sharp", 10: "none"}}
    settings = {"label_classes": ["T3", "T4"], "aux_levels": aux, "recipe": {"seed": 3}, "provenance": {"by": "ü"}}
    with StoreWriter(path, rgb=rgb, **{**settings, **options}) as store:
        for lesion in lesions():
            store.add(**lesion)
        store.skip("9", "1", "a contour lies 4 mm from the nearest slice. Do: complete the series.")
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("store") / "own.h5")


@pytest.fixture
def store(path):
    with open_store(path) as opened:
        yield opened


def expected(split, column):
    chosen = [lesion for lesion in lesions() if lesion["split"] == split]
    return np.concatenate([lesion[column] for lesion in chosen])


# -- What lies in the file ----------------------------------------------------------------------------------------


def test_plain_h5py_finds_the_documented_types_and_shapes(path):
    with h5py.File(path, "r") as root:
        assert (root.attrs["format"], int(root.attrs["version"]), bool(root.attrs["complete"])) == (b"ctpatch", 1, True)
        assert sorted(root) == ["lesions", "provenance", "recipe", "skipped", "test", "train", "val"]
        for split, count in COUNTS.items():
            assert sorted(root[split]) == sorted(TAILS)
            for name, (dtype, tail) in TAILS.items():
                assert (root[split][name].dtype.str, root[split][name].shape) == (dtype, (count, *tail))
        for name, dtype in LESION_NUMBERS.items():
            assert (root["lesions"][name].dtype.str, root["lesions"][name].shape) == (dtype, (5,))
        assert root["lesions/aux/margin"].dtype.str == "<f8"
        for name in ("recipe", "provenance"):
            assert root[name].dtype == np.uint8
            assert root[name].ndim == 1
        assert json.loads(bytes(root["provenance"][()])) == {"by": "ü"}


def test_text_is_fixed_length_utf8(path):
    with h5py.File(path, "r") as root:
        columns = [root["lesions"][name] for name in LESION_TEXT] + list(root["skipped"].values())
        for column in columns:
            info = h5py.check_string_dtype(column.dtype)
            assert info.encoding == "utf-8"
            assert info.length is not None
        assert [t.decode() for t in root["lesions/patient_id"][()]] == ["007", "007", "8", "Ä", "β"]
        assert list(root["lesions/patient_id"].asstr()) == ["007", "007", "8", "Ä", "β"]


def test_attributes_are_of_fixed_length_too(path):
    with h5py.File(path, "r") as root:
        items = [root, *(root[name] for name in root), root["lesions/aux"], *all_datasets(root)]
        for item in items:
            assert not any(item.attrs.get_id(name).dtype.hasobject for name in item.attrs)
        assert [name.decode() for name in root["lesions"].attrs["label_classes"]] == ["T3", "T4"]


def test_every_dataset_has_gzip_and_images_one_patch_per_chunk(path):
    with h5py.File(path, "r") as root:
        for dataset in all_datasets(root):
            assert dataset.compression == "gzip"
            assert dataset.id.get_create_plist().get_nfilters() == 1
        for split in COUNTS:
            for name in ("hu", "rgb"):
                assert root[split][name].chunks == (1, *TAILS[name][1])
                assert root[split][name].id.get_num_chunks() == COUNTS[split]


def test_only_hard_links_and_no_timestamps(path):
    with h5py.File(path, "r") as root:
        for group in (root, *(root[name] for name in ("lesions", "skipped", "train", "val", "test", "lesions/aux"))):
            assert all(isinstance(group.get(name, getlink=True), h5py.HardLink) for name in group)
        times = [h5py.h5o.get_info(dataset.id).mtime for dataset in all_datasets(root)]
        assert not any(times)


def test_each_sha256_is_that_of_the_little_endian_bytes(path):
    with h5py.File(path, "r") as root:
        for dataset in all_datasets(root):
            values = dataset[()]
            raw = values.astype(values.dtype.newbyteorder("<")).tobytes(order="C")
            assert dataset.attrs["sha256"].decode() == hashlib.sha256(raw).hexdigest()


def test_root_sha256_can_be_recomputed_from_its_documentation(path):
    """Canonical JSON of {path: {attrs, dtype, shape}}, the root's own sha256 left out."""
    with h5py.File(path, "r") as root:
        described = {"/": {"attrs": plain_attributes(root)}}
        del described["/"]["attrs"]["sha256"]
        todo = [root[name] for name in root]
        while todo:
            item = todo.pop()
            described[item.name] = {"attrs": plain_attributes(item)}
            if isinstance(item, h5py.Group):
                todo += [item[name] for name in item]
            else:
                described[item.name] |= {"dtype": item.dtype.str, "shape": list(item.shape)}
        text = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert root.attrs["sha256"].decode() == hashlib.sha256(text.encode()).hexdigest()


def all_datasets(group):
    for child in group.values():
        if isinstance(child, h5py.Dataset):
            yield child
        else:
            yield from all_datasets(child)


def plain_attributes(item):
    values = {}
    for name, value in item.attrs.items():
        value = np.asarray(value)
        values[name] = (np.char.decode(value) if value.dtype.kind == "S" else value).tolist()
    return values


def test_same_content_gives_the_same_bytes_in_another_process(path, tmp_path):
    other = tmp_path / "again.h5"
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_store; test_store.write(sys.argv[2])"
    folder = os.path.dirname(__file__)
    subprocess.run([sys.executable, "-c", code, folder, str(other)], check=True)
    assert other.read_bytes() == path.read_bytes()


def test_store_is_readable_by_its_owner_only(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# -- Writing ------------------------------------------------------------------------------------------------------


def test_what_was_written_is_read(store):
    table = store.lesions
    assert list(table.patient_id) == ["007", "007", "8", "Ä", "β"]
    assert list(table.n_patches) == [3, 1, 1, 1, 1]
    assert list(table.label) == ["T3", "T4", "T3", "", "T4"]
    np.testing.assert_array_equal(table.aux_margin, [np.nan, 5, np.nan, 5, np.nan])
    np.testing.assert_array_equal(table.diameter_mm, [np.nan, 8.5, 9.5, 10.5, 11.5])
    assert store.label_classes == ("T3", "T4")
    assert store.aux_levels == {"margin": {1.0: "poor", 5.0: "sharp", 10.0: "none"}}
    assert list(store.aux_levels["margin"]) == [1.0, 5.0, 10.0]
    assert (store.recipe, store.provenance) == ({"seed": 3}, {"by": "ü"})
    assert list(store.skipped.patient_id) == ["9"]
    for split in COUNTS:
        view = store.split(split)
        assert len(view) == COUNTS[split]
        for column in ("hu", "plane", "copy", "center", "angle", "shift"):
            np.testing.assert_array_equal(getattr(view, column)[:], expected(split, column))
        np.testing.assert_array_equal(view.rgb[:], render(expected(split, "hu")))
    assert store.split("train").lesion[:].tolist() == [0, 0, 0, 1]
    assert store.split("test").lesion[:].tolist() == [3, 4]


def test_without_rgb(tmp_path):
    with open_store(write(tmp_path / "hu.h5", rgb=False)) as store:
        assert store.split("train").rgb is None
        assert "rgb" not in store.file["train"]


def test_empty_store_and_no_classes_and_unknown_centre(tmp_path):
    with StoreWriter(tmp_path / "bare.h5", label_classes=[], rgb=False) as writer:
        writer.add(patient_id="1", split="test", label="", hu=np.zeros((1, 64, 64), np.int32))
    with open_store(tmp_path / "bare.h5") as store:
        assert store.label_classes == ()
        assert np.isnan(store.split("test").center[:]).all()
        assert [len(store.split(split)) for split in COUNTS] == [0, 0, 1]
        assert store.split("train").hu[:].shape == (0, 64, 64)
        assert len(store.skipped) == 0


HU = np.zeros((2, 64, 64), np.int16)
GOOD = {"patient_id": "b", "lesion_id": "2", "split": "train", "label": "x", "hu": HU}
WRONG = {
    "lesion before": ({"lesion_id": "1"}, "order"),
    "lesion twice": ({}, "order"),
    "patient before": ({"patient_id": "a"}, "order"),
    "label": ({"lesion_id": "3", "label": "z"}, "'z' is not in label_classes"),
    "split": ({"lesion_id": "3", "split": "dev"}, "'dev'"),
    "two splits": ({"lesion_id": "3", "split": "val"}, "two splits: train, val"),
    "aux": ({"lesion_id": "3", "aux": {"edge": 1.0}}, "'edge'"),
    "shape": ({"lesion_id": "3", "hu": HU[:, :32]}, r"\(2, 32, 64\)"),
    "float": ({"lesion_id": "3", "hu": HU.astype(float)}, "float64"),
    "no patch": ({"lesion_id": "3", "hu": HU[:0]}, "no patch"),
    "range": ({"lesion_id": "3", "hu": HU.astype(int) + 40_000}, "40000 to 40000"),
    "below range": ({"lesion_id": "3", "hu": HU.astype(int) - 32_769}, "-32769"),
    "plane": ({"lesion_id": "3", "plane": 3}, "plane"),
    "plane wraps": ({"lesion_id": "3", "plane": np.array([0, 256])}, "256"),
    "plane is half": ({"lesion_id": "3", "plane": 0.5}, "plane"),
    "copy wraps": ({"lesion_id": "3", "copy": np.array([-1, 0])}, "copy"),
    "columns of another length": ({"lesion_id": "3", "angle": np.zeros(3)}, r"angle is float64 \(3,\).*\(2\)"),
    "centre of two": ({"lesion_id": "3", "center": np.zeros((2, 2))}, r"\(2, 3\)"),
    "text instead of numbers": ({"lesion_id": "3", "angle": "left"}, "angle"),
    "NUL": ({"lesion_id": "3\0"}, "NUL"),
    "number as an id": ({"patient_id": 7}, "str"),
    "lone surrogate": ({"patient_id": "c\udcff"}, "UTF-8"),
    "blank": ({"patient_id": "c", "lesion_id": ""}, "blank"),
    "level in words": ({"lesion_id": "3", "aux": {"m": "sharp"}}, "lesion 3: characteristic 'm' is 'sharp'"),
    "no level": ({"lesion_id": "3", "aux": {"m": 7.0}}, "'m' is 7.0, none of its levels"),
    "infinite level": ({"lesion_id": "3", "aux": {"free": np.inf}}, "'free' is inf"),
    "names without levels": ({"lesion_id": "3", "aux": ["m"]}, "aux is "),
    "no readers": ({"lesion_id": "3", "n_readers": None}, "n_readers is None"),
    "half a reader": ({"lesion_id": "3", "n_readers": 2.5}, "n_readers is 2.5"),
    "too many readers": ({"lesion_id": "3", "n_readers": 2**40}, "n_readers is 1099511627776"),
    "size in words": ({"lesion_id": "3", "diameter_mm": "large"}, "diameter_mm is 'large'"),
    "size below zero": ({"lesion_id": "3", "diameter_mm": -3}, "diameter_mm is -3"),
    "no label": ({"lesion_id": "3", "label": None}, "label None .* '' where the class is unknown"),
    "masked": ({"lesion_id": "3", "hu": np.ma.masked_equal(HU, 0)}, "masked array"),
    "infinite angle": ({"lesion_id": "3", "angle": np.inf}, "angle has values from inf to inf"),
}


def write_two(path, change):
    levels = {"m": {1: "sharp", 2: "blurred"}, "free": {}}
    with StoreWriter(path, label_classes=["x"], aux_levels=levels, rgb=False) as store:
        store.add(**GOOD, aux={"m": np.nan, "free": np.float32(7.5)})
        store.add(**{**GOOD, **change})


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path, case):
    change, says = WRONG[case]
    with pytest.raises(InputError, match=says) as error:
        write_two(tmp_path / "own.h5", change)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", ["label", "shape", "plane", "two splits", "lesion twice"])
def test_a_caller_may_go_on_after_a_refused_lesion(tmp_path, case):
    with StoreWriter(tmp_path / "own.h5", label_classes=["x"], rgb=False) as store:
        store.add(**GOOD)
        with pytest.raises(InputError):
            store.add(**{**GOOD, **WRONG[case][0]})
        store.add(**{**GOOD, "patient_id": "c"})
    with open_store(tmp_path / "own.h5") as store:
        assert list(store.lesions.patient_id) == ["b", "c"]
        assert len(store.split("train")) == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label_classes": ["x", "x"]}, "label_classes is "),
        ({"label_classes": "benign"}, "label_classes is 'benign'"),
        ({"label_classes": [0, 1]}, "label_classes is "),
        ({"label_classes": {"x", "y"}}, "label_classes is {'"),
        ({"label_classes": ["", "x"]}, "a blank name, which stands for an unknown class"),
        ({"aux_levels": {"m": {"1": "a"}}}, "the levels of 'm' are "),
        ({"aux_levels": {"m": {np.nan: "a"}}}, "the levels of 'm' are "),
        ({"aux_levels": {"m": ["a"]}}, "the levels of 'm' are "),
        ({"aux_levels": {1: {}}}, "characteristic 1"),
        ({"recipe": {"a": np.int64(1)}}, "recipe is no JSON document"),
        ({"provenance": {"a": float("nan")}}, "provenance is no JSON document"),
    ],
)
def test_what_no_store_can_hold_is_refused_at_the_beginning(tmp_path, change, says):
    with pytest.raises(InputError, match=says):
        StoreWriter(tmp_path / "own.h5", **{"label_classes": ["x"], **change})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("skipped", [(1, "2", "why"), ("1", 2, "why"), ("1", "2", None), ("1", "2", "wh\0")])
def test_what_cannot_be_listed_as_skipped_is_refused(tmp_path, skipped):
    with (
        pytest.raises(InputError, match=r"^patient=1 lesion 2: .* is no text"),
        StoreWriter(tmp_path / "own.h5", label_classes=["x"], rgb=False) as store,
    ):
        store.skip(*skipped)


@pytest.mark.parametrize("name", ["a/b", ".", "", "..", "a\0"])
def test_characteristic_that_cannot_name_a_dataset(tmp_path, name):
    with pytest.raises(InputError, match="characteristic"):
        StoreWriter(tmp_path / "own.h5", label_classes=["x"], aux_levels={name: {}})
    assert list(tmp_path.iterdir()) == []


def test_an_exception_in_the_block_leaves_an_old_store_untouched(tmp_path):
    path = tmp_path / "own.h5"
    path.write_bytes(b"the old one")
    with pytest.raises(TypeError, match="colour"):
        write_two(path, {"colour": 3})
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_under_the_final_name_before_the_end(tmp_path):
    path = tmp_path / "own.h5"
    with StoreWriter(path, label_classes=["x"], rgb=False) as store:
        store.add(**GOOD)
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]


def test_a_final_name_that_cannot_be_taken_leaves_no_litter(tmp_path):
    (tmp_path / "own.h5").mkdir()
    with (
        pytest.raises(CtpatchError, match=r"own\.h5: cannot be written \(Is a directory"),
        StoreWriter(tmp_path / "own.h5", label_classes=["x"], rgb=False) as store,
    ):
        store.add(**GOOD)
    assert [p.name for p in tmp_path.iterdir()] == ["own.h5"]


def test_streams_that_are_not_of_these_hu_are_not_written(tmp_path):
    """The digests are of the HU and of what they render to, so the streams have to say that they hold just that."""
    hu = np.random.default_rng(0).integers(-1000, 400, (9, 64, 64)).astype("<i2")
    streams, other = deflate("hu", hu), deflate("rgb", render(hu + 1))
    columns = {name: as_column(name, 0, 9) for name in ("plane", "copy", "center", "angle", "shift")}
    good = deflate("rgb", render(hu))
    cases = [(streams, rgb, "picture|rgb streams") for rgb in (other, [*good[:8], good[7]], good[:8], [*good, good[8]])]
    changed = deflate("hu", hu + 1)
    cases += [(own, good, "not its patch|hu streams") for own in (changed, streams[:8], [*streams, streams[8]])]
    for own, rgb, refusal in cases:
        with (
            pytest.raises(ValueError, match=refusal),
            StoreWriter(tmp_path / "own.h5", label_classes=["x"]) as store,
        ):
            store.add_patches(Lesion("a", "1", "train", "x"), Patches(hu, {"hu": own, "rgb": rgb}, columns))
    assert list(tmp_path.iterdir()) == []


# -- Reading ------------------------------------------------------------------------------------------------------

whole_numbers = st.integers(-9, 9)
slices = st.builds(slice, st.none() | whole_numbers, st.none() | whole_numbers, st.none() | whole_numbers.filter(bool))
index_lists = st.lists(st.integers(-4, 3), max_size=8)
masks = st.lists(st.booleans(), min_size=4, max_size=4)


@given(key=slices | index_lists | masks | st.integers(-4, 3))
def test_indexing_is_numpy_s(path, key):
    with open_store(path) as store:
        view, whole = store.split("train"), expected("train", "hu")
        wanted = whole[np.array(key, dtype=int)] if key == [] else whole[key]
        got = view.hu[key]
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == np.int16
        if isinstance(key, list) and key:
            np.testing.assert_array_equal(view.hu[np.array(key)], wanted)


@pytest.mark.parametrize(
    "key", [[4], [-5], 4, -5, [1.5], [True, False], np.ones((4, 1), bool), "1", False, np.True_, (False, 3)]
)
def test_wrong_indices_are_refused(store, key):
    with pytest.raises(IndexError):
        store.split("train").hu[key]


def test_comparing_a_column_gives_a_mask(store):
    view, copy = store.split("train"), expected("train", "copy")
    np.testing.assert_array_equal(view.hu[view.copy == 0], expected("train", "hu")[copy == 0])
    np.testing.assert_array_equal(view.hu[view.copy != 0], expected("train", "hu")[copy != 0])
    for compare in (operator.lt, operator.le, operator.gt, operator.ge):
        np.testing.assert_array_equal(compare(view.copy, 1), compare(copy, 1))


def test_the_table_of_lesions_is_the_caller_s_own(store):
    before, mine, skipped = store.lesions, store.lesions, store.skipped
    mine["label"] = mine["aux_more"] = ""
    skipped["reason"] = ""
    pd.testing.assert_frame_equal(store.lesions, before)
    assert "".join(store.skipped["reason"])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint64])
def test_indices_of_any_integer_type(tmp_path, dtype):
    hu = np.arange(300, dtype=np.int16)[:, None, None] * np.ones((64, 64), np.int16)
    with StoreWriter(tmp_path / "many.h5", label_classes=["x"], rgb=False) as writer:
        writer.add(**{**GOOD, "hu": hu})
    with open_store(tmp_path / "many.h5") as store:
        view = store.split("train")
        assert view.hu[np.array([120, 1], dtype)][:, 0, 0].tolist() == [120, 1]
        assert view.hu[dtype(120)][0, 0] == 120
        np.testing.assert_array_equal(view.pictures(dtype(120)), view.pictures(120))
        if np.issubdtype(dtype, np.signedinteger):
            assert view.hu[np.array([-1], dtype)][0, 0, 0] == 299


def test_views_know_their_shape_and_become_arrays(store):
    view = store.split("train")
    assert (view.hu.shape, view.hu.dtype, len(view.hu)) == ((4, 64, 64), np.int16, 4)
    np.testing.assert_array_equal(np.asarray(view.angle), expected("train", "angle"))
    np.testing.assert_array_equal(view.hu[1, 3:5, ::2], expected("train", "hu")[1, 3:5, ::2])
    np.testing.assert_array_equal(view.hu[np.array([[3, 0], [1, 1]])], expected("train", "hu")[[[3, 0], [1, 1]]])
    with pytest.raises(AttributeError):
        view.pixels  # noqa: B018
    with pytest.raises(KeyError, match="dev"):
        store.split("dev")


def test_pickled_store_opens_the_file_for_itself(store):
    store.lesions  # noqa: B018 - cached: not to be sent along
    view = pickle.loads(pickle.dumps(store.split("train")))
    np.testing.assert_array_equal(view.hu[::-1], expected("train", "hu")[::-1])
    column = pickle.loads(pickle.dumps(store.split("train").hu))
    np.testing.assert_array_equal(column[2], expected("train", "hu")[2])
    assert view.store.file is not store.file
    view.store.close()
    column._store.close()


def test_forked_readers_do_not_disturb_each_other(store):
    whole = expected("train", "hu")
    assert store.split("train").hu[0].shape == (64, 64)  # the handle is open before the fork
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_read_often, args=(store, whole, n)) for n in range(4)]
    for worker in workers:
        worker.start()
    _compare_often(store, whole, 9)
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4


def _read_often(store, whole, seed):
    assert store._pid != os.getpid()
    _compare_often(store, whole, seed)
    assert store._pid == os.getpid()


def _compare_often(store, whole, seed):
    for n in np.random.default_rng(seed).integers(0, 4, 100):
        np.testing.assert_array_equal(store.split("train").hu[int(n)], whole[n])


def test_spawned_reader(path):
    with open_store(path) as store, multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(len, (store.split("train"),)) == 4
        np.testing.assert_array_equal(pool.apply(np.asarray, (store.split("train").hu,)), expected("train", "hu"))


def test_closed_store_opens_again_when_asked(path):
    store = open_store(path)
    store.close()
    store.close()
    assert len(store.split("val")) == 1
    store.close()


def test_another_store_in_its_place_is_refused(tmp_path):
    """A worker that opens the file for itself would have the new one's pixels, and the old one's labels."""
    store = open_store(write(tmp_path / "own.h5"))
    sent = pickle.dumps(store)
    assert len(pickle.loads(sent).split("train")) == 4
    write(tmp_path / "own.h5", rgb=False)
    assert len(store.split("train")) == 4  # its file is open
    with pytest.raises(InputError, match="another store lies there than was opened"):
        pickle.loads(sent).split("train").hu[0]
    store.close()
    with pytest.raises(InputError, match="another store lies there than was opened"):
        store.split("train").hu[0]


def test_a_store_is_named_as_it_was_given(tmp_path, monkeypatch):
    """Not by its whole path, which has a home folder in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("a,b")
    for name in ("table.csv", "nowhere.h5"):
        with pytest.raises(InputError, match=rf"^{name}: "):
            open_store(name)


def test_a_worker_may_have_another_working_folder(path, tmp_path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with open_store(path.name) as store:
        sent = pickle.dumps(store)
        assert store.path == Path(path.name)
    monkeypatch.chdir(tmp_path)
    with pickle.loads(sent) as store:
        assert len(store.split("train")) == 4


HEAVY = ("SimpleITK", "pydicom", "numba", "scipy", "torch", "joblib", "highdicom", "gdcm", "shapely", "matplotlib")


def test_reading_imports_nothing_heavy(path):
    code = (
        "import sys, ctpatch; ctpatch.StoreWriter; store = ctpatch.open_store(sys.argv[1]); store.lesions;"
        f"store.split('train').rgb[:2]; print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert ctpatch.__version__ == version("ctpatch")


def test_ctrl_c_at_any_moment_of_finishing_leaves_no_store(tmp_path, monkeypatch):
    """h5py drops an exception from HDF5's writing while it closes something: a sealed store had zeros for a column."""
    hu, write, left = np.zeros((2, 64, 64), np.int16), Sink.write, [0]

    def interrupted(self, data):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return write(self, data)

    monkeypatch.setattr(Sink, "write", interrupted)
    for moment in itertools.count(1):
        left[0] = 0
        store = StoreWriter(tmp_path / "s.h5", label_classes=["a"], rgb=False)
        store.add(patient_id="p", split="train", label="a", hu=hu)
        left[0] = moment
        try:
            store.finish()
            break  # it writes less often
        except KeyboardInterrupt:
            assert list(tmp_path.iterdir()) == []
    assert left[0] > 0
    assert moment > 20


def test_a_store_is_finished_once(tmp_path):
    hu = np.zeros((2, 64, 64), np.int16)
    with StoreWriter(tmp_path / "s.h5", label_classes=["a"], rgb=False) as store:
        store.add(patient_id="p", split="train", label="a", hu=hu)
        store.finish()
        with pytest.raises(InputError, match="finished"):
            store.add(patient_id="q", split="train", label="a", hu=hu)
        with pytest.raises(InputError, match="finished"):
            store.finish()
    assert open_store(tmp_path / "s.h5").lesions["patient_id"].tolist() == ["p"]
