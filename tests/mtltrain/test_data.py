"""The network's input equals the store's pictures; cohorts that would give a wrong answer are refused."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from toystore import CLASSES, write_store

from ctpatch import InputError, StoreWriter, open_store
from ctpatch.store import IMAGENET, WINDOWS
from mtltrain.cohort import label_order, read_cohort, refuse_leaks
from mtltrain.data import PatchDataset, Rendering, class_index, load_patches

RENDERING = Rendering.of(WINDOWS)


def test_levels_are_the_stores_pictures(tmp_path):
    with open_store(write_store(tmp_path / "s.h5", rgb=True)) as store:
        part = store.split("train")
        got = RENDERING.levels(torch.from_numpy(np.asarray(part.hu))).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(got, np.asarray(part.rgb))


@settings(max_examples=20, deadline=None)
@given(arrays(np.int16, (64, 64), elements=st.integers(-32768, 32767)))
def test_levels_agree_with_torch_in_float64(hu):
    up = torch.nn.functional.interpolate(
        torch.from_numpy(hu).double()[None, None], size=224, mode="bilinear", align_corners=False
    )[0, 0]
    got = RENDERING.levels(torch.from_numpy(hu)[None])[0].double()
    for channel, (low, high) in zip(got, WINDOWS, strict=True):
        exact = 255 * ((up - low) / (high - low)).clamp(0, 1)
        assert (channel - exact).abs().max() <= 0.5 + 1e-6


def whole_numbers(hu, windows):
    """The levels by the store's rule in whole numbers of 64 bits, shape (3, 224, 224)."""
    place = np.clip(4 * np.arange(224) - 5, 0, 14 * 63)
    lower = np.minimum(place // 14, 62)
    weight = place - 14 * lower
    wide = (14 - weight) * hu[:, lower].astype(np.int64) + weight * hu[:, lower + 1]
    unit = (14 - weight)[:, None] * wide[lower] + weight[:, None] * wide[lower + 1]
    levels = []
    for low, high in windows:
        width = 196 * (high - low)
        levels.append((510 * np.clip(unit - 196 * low, 0, width) + width) // (2 * width))
    return np.array(levels)


WINDOW = st.tuples(st.integers(-70_000, 70_000), st.integers(1, 80_000)).map(lambda w: (w[0], w[0] + w[1]))


@settings(max_examples=30, deadline=None)
@given(
    arrays(np.int16, (64, 64), elements=st.integers(-32768, 32767)),
    st.lists(WINDOW, min_size=3, max_size=3),
)
@example(np.arange(4096, dtype=np.int16).reshape(64, 64), [(-500, 1500), (0, 1), (-1024, 3071)])
@example(np.arange(-2048, 2048, dtype=np.int16).reshape(64, 64), [(-1400, 200), (-160, 240), (-(10**9), 10**9)])
def test_levels_of_any_windows_are_whole_numbers_worked_out_exactly(hu, windows):
    got = Rendering.of(windows).levels(torch.from_numpy(hu)[None])[0]
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got, whole_numbers(hu, windows))


@pytest.mark.parametrize("windows", [WINDOWS, [(-500, 1500), (-1024, 3071), (0, 1)]], ids=["float32", "float64"])
def test_the_kernel_of_a_cpu_gives_the_bits_of_a_devices_arithmetic(windows):
    rendering = Rendering.of(windows, normalisation=((0.5, 0.4, 0.3), (0.2, 0.3, 0.1)))
    hu = torch.from_numpy(np.random.default_rng(0).integers(-1200, 1600, (3, 64, 64)).astype(np.int16))
    by_tensors = rendering.levels(hu) * rendering.gain - rendering.offset
    assert torch.equal(rendering.pictures(hu), by_tensors)
    assert torch.equal(rendering.pictures(hu[[2, 0]]), by_tensors[[2, 0]])
    assert torch.equal(rendering.pictures(hu.flip(0)[::2]), by_tensors[[2, 0]])


def test_windows_beyond_any_ct():
    assert RENDERING.low.dtype == torch.float32  # the paper's need no more
    with pytest.raises(InputError, match="windows"):
        Rendering.of([(0, 10**12), *WINDOWS[1:]])


def test_a_stores_own_windows_make_its_pictures(tmp_path):
    windows = [[-1400, 200], [-160, 240], [-500, 1500]]
    with open_store(write_store(tmp_path / "s.h5", windows=windows)) as store:
        hu = torch.from_numpy(np.asarray(store.split("train").hu))
        expected = Rendering.of(windows).pictures(hu)
        assert not torch.equal(expected, RENDERING.pictures(hu))
        assert torch.equal(load_patches(store, "train", torch.device("cpu")).pictures(slice(None)), expected)
        assert torch.equal(PatchDataset(store, "train")[3][0], expected[3])
        cohort = read_cohort(store)
        assert torch.equal(cohort.patches["train"].pictures(torch.tensor([3, 1])), expected[[3, 1]])
        assert [list(window) for window in cohort.windows] == windows


def test_garbage_for_windows(tmp_path):
    path = write_store(tmp_path / "s.h5", windows=[[0, "a"]])
    with open_store(path) as store, pytest.raises(InputError, match="windows"):
        read_cohort(store)


def test_render_normalises_as_torchvision_does():
    hu = torch.tensor([-1024, 400], dtype=torch.int16)[:, None, None].expand(2, 64, 64)
    mean, std = (torch.tensor(v)[:, None, None].expand(3, 224, 224) for v in IMAGENET)
    torch.testing.assert_close(RENDERING.pictures(hu), torch.stack([-mean / std, (1 - mean) / std]))


def test_dataset_feeds_a_data_loader(store):
    with open_store(store) as opened:
        data = PatchDataset(opened, "train")
        pictures, labels, aux = next(iter(torch.utils.data.DataLoader(data, batch_size=24)))
        lesions = opened.lesions.iloc[np.asarray(opened.split("train").lesion)]
        assert len(data) == 24
        torch.testing.assert_close(pictures, RENDERING.pictures(torch.from_numpy(np.asarray(opened.split("train").hu))))
        assert [CLASSES[k] for k in labels] == list(lesions["label"])
        np.testing.assert_array_equal(aux, lesions[["aux_noise", "aux_size"]])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_a_list_of_indices(store, workers):
    """Whole batches, in workers too, are what single items are when they are put together."""
    with open_store(store) as opened:
        data = pickle.loads(pickle.dumps(PatchDataset(opened, "train")))  # as a spawned worker gets it
        order = [5, 0, 23, 5, 11, 1, 7]
        batches = torch.utils.data.BatchSampler(order, 3, drop_last=False)
        got = list(torch.utils.data.DataLoader(data, batch_size=None, sampler=batches, num_workers=workers))
        wanted = list(torch.utils.data.DataLoader(torch.utils.data.Subset(data, order), 3))
    assert [len(pictures) for pictures, _, _ in got] == [3, 3, 1]
    for one, two in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)


def test_items_by_index(store):
    with open_store(store) as opened:
        data = PatchDataset(opened, "train", ((0, 0, 0), (1, 1, 1)))
        pictures, label, aux = data[-1]
        assert (pictures.min() >= 0, pictures.max() <= 1, type(label), aux.shape) == (True, True, int, (2,))
        assert torch.equal(pictures, data[23][0])
        assert [tuple(part.shape) for part in data[[]]] == [(0, 3, 224, 224), (0,), (0, 2)]
        for index, same in ((slice(5, 0, -1), [5, 4, 3, 2, 1]), (torch.tensor(1), 1), (torch.tensor([7, 3]), [7, 3])):
            torch.testing.assert_close(data[index], data[same], rtol=0, atol=0, equal_nan=True)
        for index in (24, -25, [24]):
            with pytest.raises(IndexError):
                data[index]


def test_patches_are_loaded_whole(store):
    with open_store(store) as opened:
        patches = load_patches(opened, "train", torch.device("cpu"))
        np.testing.assert_array_equal(patches.hu, np.asarray(opened.split("train").hu))
        assert patches.lesion.tolist() == [k // 2 for k in range(24)]


def table(*rows):
    return pd.DataFrame(rows, columns=["patient_id", "split"]).assign(series="")


NO_PIXELS = pd.Series([], dtype=str)


@pytest.mark.parametrize(
    "other",
    ["P7", "p7", " P7", "P7 ", "00P7", "\uff307"],
    ids=["same", "case", "blank", "blank after", "zeros", "wide"],
)
def test_patient_in_two_splits(other):
    with pytest.raises(InputError, match="is in test and train"):
        refuse_leaks(table(("P7", "train"), (other, "test"), ("P8", "val")), NO_PIXELS)


def test_different_patients_pass():
    refuse_leaks(table(("P7", "train"), ("P70", "test"), ("0", "val"), ("00", "val")), NO_PIXELS)


@pytest.mark.parametrize("counts", [{"train": 4, "val": 1}, {"train": 1, "val": 4}, {"train": 4}, {"val": 4}])
def test_a_class_missing(tmp_path, counts):
    with open_store(write_store(tmp_path / "s.h5", counts)) as opened, pytest.raises(InputError, match="each class"):
        read_cohort(opened)


def test_one_class_in_all(tmp_path):
    path = write_store(tmp_path / "s.h5", classes=("benign",))
    with open_store(path) as opened, pytest.raises(InputError, match="1 class"):
        read_cohort(opened)


def test_cohort(store):
    with open_store(store) as opened:
        cohort = read_cohort(opened)
        assert (cohort.positive, cohort.label[:4].tolist()) == ("malignant", [0, 1, 0, 1])
        assert "train: 6 of malignant" in cohort.counted
        assert not set(cohort.counted) & set(cohort.notes)  # the page has them in its flow, and no caveat is one
        assert read_cohort(opened, "benign").order == ("malignant", "benign")


def test_the_positive_class_is_told_unless_named(store):
    with open_store(store) as opened:
        (told,) = [note for note in read_cohort(opened).notes if note.startswith("positive class")]
        assert told.startswith(
            "positive class: malignant, the last of benign and malignant in sorted order; --positive"
        )
        for chosen in ({"positive": "malignant"}, {"order": ["benign", "malignant"]}):
            assert not [note for note in read_cohort(opened, **chosen).notes if "positive" in note]


@pytest.mark.parametrize(("each", "few"), [(19, True), (20, False)])
def test_few_validation_lesions_are_told(tmp_path, each, few):
    path = write_store(tmp_path / "s.h5", {"train": 4, "val": 2 * each})
    with open_store(path) as opened:
        told = [note for note in read_cohort(opened).notes if note.startswith("few val lesions")]
    expected = f"few val lesions ({each} of benign, {each} of malignant): which epoch is kept, and Youden's threshold, "
    assert told == ([expected + "are close to chance"] if few else [])


def test_constant_patches_are_told(tmp_path):
    with StoreWriter(tmp_path / "s.h5", label_classes=CLASSES, rgb=False) as writer:
        for k in range(4):
            split = "train" if k < 2 else "val"
            hu = np.zeros((1, 64, 64), np.int16)
            writer.add(patient_id=str(k), split=split, label=CLASSES[k % 2], hu=hu)
    with open_store(tmp_path / "s.h5") as opened:
        told = ("train: 2 of 2 patches are of one HU throughout", "val: 2 of 2 patches are of one HU throughout")
        assert read_cohort(opened).notes[-2:] == told


def test_label_order():
    assert label_order(("a", "b"), None, None) == ("a", "b")
    assert label_order(("a", "b"), "a", None) == label_order(("a", "b"), "a", ["b", "a"]) == ("b", "a")
    with pytest.raises(InputError, match="--positive a, but --label-order ends with b"):
        label_order(("a", "b"), "a", ["a", "b"])
    assert label_order(("a", "b", "c"), None, ["b", "a", "c"]) == ("b", "a", "c")


@pytest.mark.parametrize(
    ("classes", "positive", "order"),
    [("ab", "c", None), ("abc", "a", None), ("abc", None, None), ("abc", None, ["a", "b"]), ("ab", None, ["a", "a"])],
)
def test_label_order_refused(classes, positive, order):
    with pytest.raises(InputError):
        label_order(tuple(classes), positive, order)


def test_class_index():
    assert class_index(pd.Series(["b", "", "a"]), ["a", "b"]).tolist() == [1, -1, 0]
    with pytest.raises(InputError, match="'c' is not one of a, b"):
        class_index(pd.Series(["c"]), ["a", "b"])
