"""`SplitView.pictures` against the design's integer formula; whatever reads the store, in whatever order."""

import multiprocessing
import pickle
from fractions import Fraction
from math import floor

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ctpatch import InputError, StoreWriter, open_store
from ctpatch.patches.render import network_input
from ctpatch.patches.rendering import IMAGENET, Rendering

WINDOWS = [(-800, -200), (-200, 400), (-1000, 400)]
LEVELS = ((0, 0, 0), (1 / 255,) * 3)
"""Gives the levels themselves, but for the last bits of a float32."""
N = 5


def exact_upsampling(hu):
    """196 · HU at every output pixel of patches (..., 64, 64), as int64: its weights from fractions."""
    weights = np.zeros((224, 64), np.int64)
    for i in range(224):
        place = min(max(Fraction(2 * i + 1, 2) * Fraction(64, 224) - Fraction(1, 2), Fraction(0)), Fraction(63))
        lower = min(floor(place), 62)
        weights[i, lower + 1] = int(14 * (place - lower))
        weights[i, lower] = 14 - weights[i, lower + 1]
    return weights @ hu.astype(np.int64) @ weights.T


def levels(hu, windows=WINDOWS):
    """(N, 3, 224, 224) by the design's formula, in whole numbers of 64 bits."""
    x = exact_upsampling(hu)
    planes = []
    for low, high in windows:
        t = np.clip(x - 196 * low, 0, 196 * (high - low))
        planes.append((510 * t + 196 * (high - low)) // (392 * (high - low)))
    return np.stack(planes, -3)


def normalised(found, mean, std):
    """The definition in float64."""
    mean, std = (np.array(values)[:, None, None] for values in (mean, std))
    return (found / 255 - mean) / std


def pixels(n=N):
    hu = np.random.default_rng(3).integers(-1100, 900, (n, 64, 64)).astype(np.int16)
    hu[0, 10:50] = -32768
    hu[1, :, 30:] = 32767
    return hu


def write(path, hu=None, **options):
    with StoreWriter(path, label_classes=["a"], rgb=False, **options) as store:
        store.add(patient_id="1", split="train", label="a", hu=pixels() if hu is None else hu)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("pictures") / "s.h5")


@pytest.fixture
def part(path):
    with open_store(path) as store:
        yield store.split("train")


def test_exact_levels_normalised(part):
    wanted = levels(pixels())
    got = part.pictures(slice(None), normalisation=LEVELS)
    assert (got.dtype, got.shape) == (np.float32, (N, 3, 224, 224))
    np.testing.assert_array_equal(np.rint(got), wanted)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    np.testing.assert_allclose(part.pictures([0, 1, 2, 3, 4]), normalised(wanted, *IMAGENET), rtol=1e-5, atol=1e-5)


WINDOW = st.tuples(st.integers(-70_000, 70_000), st.integers(1, 80_000)).map(lambda w: (w[0], w[0] + w[1]))


@settings(max_examples=30, deadline=None)
@given(arrays(np.int16, (1, 64, 64), elements=st.integers(-32768, 32767)), st.lists(WINDOW, min_size=3, max_size=3))
@example(np.arange(4096, dtype=np.int16).reshape(1, 64, 64), [(-500, 1500), (0, 1), (-1024, 3071)])
@example(np.arange(-2048, 2048, dtype=np.int16).reshape(1, 64, 64), [(-1400, 200), (-160, 240), (-(10**9), 10**9)])
def test_any_windows_exactly(hu, windows):
    got = network_input(hu, Rendering.of(windows, LEVELS))
    np.testing.assert_array_equal(np.rint(got), levels(hu, windows))


def test_ties_go_up():
    """Half-way between two levels in HU of 1/14 steps: (600 HU are 255 levels) the first at 600/510 above the end."""
    hu = np.zeros((1, 64, 64), np.int16)
    hu[0, :, 0::2], hu[0, :, 1::2] = -800, -780
    x = exact_upsampling(hu)
    t = x + 196 * 800
    ties = (510 * t + 196 * 600) % (392 * 600) == 0
    assert ties.any()
    got = np.rint(network_input(hu, Rendering.of(WINDOWS, LEVELS)))
    np.testing.assert_array_equal(got[0, 0][ties[0]], np.floor(255 * t[0][ties[0]] / (196 * 600) + 0.5))


def test_the_stores_own_windows(tmp_path):
    windows = [[-1400, 200], [-160, 240], [-500, 1500]]
    with open_store(write(tmp_path / "s.h5", recipe={"rendering": {"windows_hu": windows}})) as store:
        got = store.split("train").pictures(2, normalisation=LEVELS)
    np.testing.assert_array_equal(np.rint(got), levels(pixels()[2], windows))


def test_garbage_for_windows(tmp_path):
    path = write(tmp_path / "s.h5", recipe={"rendering": {"windows_hu": [[3, 2]] * 3}})
    with open_store(path) as store, pytest.raises(InputError, match="no three windows"):
        store.split("train").pictures(0)


keys = (
    st.builds(slice, *[st.none() | st.integers(-9, 9)] * 2, st.none() | st.integers(-9, 9).filter(bool))
    | st.lists(st.integers(-N, N - 1), max_size=8)
    | st.lists(st.booleans(), min_size=N, max_size=N)
    | st.integers(-N, N - 1)
)


@settings(max_examples=25, deadline=None)
@given(key=keys)
def test_indices_are_numpys(path, key):
    wanted = np.arange(N)[np.array(key, dtype=int) if key == [] else key]
    with open_store(path) as store:
        part = store.split("train")
        got = part.pictures(key)
        assert got.shape == (*np.shape(wanted), 3, 224, 224)
        whole = part.pictures(slice(None))
    np.testing.assert_array_equal(got, whole[wanted])


@pytest.mark.parametrize("key", [N, -N - 1, [N], [0, -N - 1], 1.5, [1.0], True, [True], "1", [[0], [1]], (0, 1, 2, 9)])
def test_wrong_indices(part, key):
    with pytest.raises(IndexError):
        part.pictures(key)


@pytest.mark.parametrize(
    "normalisation",
    [
        ((0, 0), (1, 1)),
        ((0, 0, 0), (1, 0, 1)),
        ((0, 0, 0), (1, -1, 1)),
        ((0, 0, float("nan")), (1, 1, 1)),
        3,
        ("a", "b"),
    ],
)
def test_wrong_normalisation(part, normalisation):
    with pytest.raises(InputError, match="three means"):
        part.pictures(0, normalisation=normalisation)


def test_given_memory_is_filled_and_returned(part):
    out = np.full((2, 3, 224, 224), np.nan, np.float32)
    got = part.pictures([3, 1], out=out)
    assert got is out
    np.testing.assert_array_equal(out, part.pictures([3, 1]))
    one = np.empty((3, 224, 224), np.float32)
    assert np.shares_memory(part.pictures(2, out=one), one)
    np.testing.assert_array_equal(one, part.pictures(2))


@pytest.mark.parametrize(
    "out",
    [
        np.empty((3, 3, 224, 224), np.float32),
        np.empty((2, 3, 224, 224)),
        np.empty((2, 224, 224, 3), np.float32).transpose(0, 3, 1, 2),
        np.broadcast_to(np.float32(0), (2, 3, 224, 224)),
    ],
    ids=["number", "type", "layout", "read-only"],
)
def test_memory_that_does_not_fit(part, out):
    with pytest.raises(ValueError, match=r"out must be a C-contiguous float32 array \(2, 3, 224, 224\)"):
        part.pictures([0, 1], out=out)


def _digest(part):
    return [part.pictures(int(i)).tobytes() for i in np.random.default_rng(0).integers(0, N, 20)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes(path, method):
    with open_store(path) as store:
        part = store.split("train")
        here = _digest(part)  # its file is open before the fork
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.map(_digest, [part, part]) == [here, here]
        again = pickle.loads(pickle.dumps(part))
        assert _digest(again) == here
        again.store.close()
        store.close()
        assert _digest(part) == here  # it opens again


# -- Chunks that are not StoreWriter's -------------------------------------------------------------------------------


def replace(path, **options):
    """The same HU as another writer might store them."""
    with h5py.File(path, "r+") as root:
        hu = root["train/hu"][()]
        del root["train/hu"]
        root.create_dataset("train/hu", data=hu, **options)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (2, 64, 64), "compression": "gzip"},
        {"chunks": (1, 64, 64), "compression": "gzip", "shuffle": True},
        {"chunks": (1, 64, 64), "fletcher32": True},
    ],
    ids=["contiguous", "two a chunk", "shuffled", "fletcher32"],
)
def test_other_layouts_give_the_same(part, tmp_path, options):
    with open_store(replace(write(tmp_path / "s.h5"), **options)) as store:
        other = store.split("train")
        np.testing.assert_array_equal(other.pictures([4, 0, 4]), part.pictures([4, 0, 4]))
        np.testing.assert_array_equal(other.hu[[4, 0, 4]], pixels()[[4, 0, 4]])


def test_what_hdf5_reads_of_unusual_chunks(tmp_path):
    """A chunk that was never written is zeros, one without its filter is itself: as HDF5 reads them."""
    path = write(tmp_path / "s.h5")
    with h5py.File(path, "r+") as root:
        del root["train/hu"]
        hu = root.create_dataset("train/hu", (N, 64, 64), "<i2", chunks=(1, 64, 64), compression="gzip")
        hu[1] = pixels()[1]
        hu.id.write_direct_chunk((2, 0, 0), pixels()[2].tobytes(), 1)
        wanted = hu[()]
    assert not wanted[3].any()
    assert (wanted[2] == pixels()[2]).all()
    with open_store(path) as store:
        part = store.split("train")
        np.testing.assert_array_equal(part.hu[[3, 2, 1]], wanted[[3, 2, 1]])
        np.testing.assert_array_equal(
            np.rint(part.pictures([3, 2, 1], normalisation=LEVELS)), levels(wanted[[3, 2, 1]])
        )


def test_a_damaged_chunk_is_told(tmp_path):
    path = write(tmp_path / "s.h5")
    with h5py.File(path) as root:
        chunk = root["train/hu"].id.get_chunk_info(3)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 4
    path.write_bytes(data)
    with open_store(path) as store:
        part = store.split("train")
        assert part.pictures(2).shape == (3, 224, 224)
        for read in (part.pictures, part.hu.__getitem__):
            with pytest.raises(InputError, match=r"s\.h5: /train/hu cannot be read: .* damaged"):
                read([2, 3])
