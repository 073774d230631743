"""Damaged stores and strangers' stores (cases 118-125): refused in one line, and nothing else read."""

import hashlib
import multiprocessing
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections import Counter

import crashing
import h5py
import numpy as np
import pytest

from ctpatch import InputError, StoreWriter, open_store
from ctpatch.cli import main
from ctpatch.store.verify import _seal_problems, verify_store


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("check") / "good.h5"
    rng = np.random.default_rng(1)
    with StoreWriter(path, label_classes=["a", "b"], aux_levels={"m": {1: "x"}}, rgb=False) as store:
        for n, split in enumerate(["train", "train", "val", "test"]):
            hu = rng.integers(-5, 5, (2, 64, 64)) * 100
            store.add(patient_id=f"P{n}", split=split, label="ab"[n % 2], hu=hu, center=rng.normal(size=(2, 3)))
        store.skip("P9", "1", "no contour. Do: draw one.")
    return path


@pytest.fixture
def copy(good, tmp_path):
    return shutil.copy(good, tmp_path / "copy.h5")


@pytest.fixture(autouse=True)
def reader_here(monkeypatch, request):
    """`verify` reads in this process, which starts no other for each of many stores; `apart` keeps it as it is."""
    if "apart" in request.fixturenames:
        return

    class Here:
        def __call__(self, function, *arguments):
            return function(*arguments)

        def close(self):
            pass

    monkeypatch.setattr("ctpatch.processes.OwnProcess", Here)


@pytest.fixture
def apart():
    """`verify` reads in a process of its own, as it does for users."""


def refused(path, says, capfd):
    """`open_store`, info and verify refuse in one line; nothing comes from HDF5 itself."""
    with pytest.raises(InputError, match=says) as error:
        open_store(path)
    assert "\n" not in str(error.value)
    assert " Do: " in str(error.value)
    for command in ("info", "verify"):
        assert main([command, str(path)]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err == f"ctpatch: {error.value}\n"


# -- Flipped bits -------------------------------------------------------------------------------------------------


def look(path):
    """What becomes of a store that may be damaged."""
    try:
        with open_store(path) as store:
            return "reported" if verify_store(store.file) else "silent"
    except InputError:
        return "refused"


def flip_bits(good, scratch, bits, results):
    """In a process of its own: damage may crash libhdf5. Sends (bit, outcome) pairs."""
    data = good.read_bytes()
    for bit in bits:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        scratch.write_bytes(damaged)
        results.send((bit, look(scratch)))
    results.close()


def outcomes_of(good, folder, bits):
    receive, send = multiprocessing.Pipe(duplex=False)
    arguments = (good, folder / "flip.h5", bits, send)
    worker = multiprocessing.get_context("fork").Process(target=flip_bits, args=arguments)
    worker.start()
    send.close()
    outcomes = {}
    while receive.poll(60):
        try:
            bit, outcome = receive.recv()
        except EOFError:
            break
        outcomes[bit] = outcome
    worker.join(60)
    assert worker.exitcode == 0, f"crashed or hung after bit {list(outcomes)[-1:]}"
    return outcomes


def test_119_no_flipped_bit_stays_unseen(good, tmp_path):
    bits = random.Random(7).sample(range(good.stat().st_size * 8), 300)
    outcomes = outcomes_of(good, tmp_path, bits)
    assert sorted(outcomes) == sorted(bits)
    count = Counter(outcomes.values())
    assert count["silent"] == 0
    assert min(count["reported"], count["refused"]) > 20


def test_119_nor_one_of_the_superblock_or_the_last_line(good, tmp_path):
    size = good.stat().st_size * 8
    bits = [*range(0, 48 * 8, 3), *range(size - 81 * 8, size, 7)]
    outcomes = outcomes_of(good, tmp_path, bits)
    assert sorted(outcomes) == sorted(bits)
    assert "silent" not in outcomes.values()


def test_119_last_line_finds_every_single_flip(good, tmp_path):
    data = good.read_bytes()
    for bit in random.Random(8).sample(range(len(data) * 8), 1200):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path = tmp_path / "flip.h5"
        path.write_bytes(damaged)
        assert len(_seal_problems(path, int)) == 1


def test_last_line_is_the_digest_of_what_is_before(good):
    data = good.read_bytes()
    *_, last = data.splitlines()
    assert last == b"ctpatch sha256 " + hashlib.sha256(data[:-81]).hexdigest().encode()


def test_119_gzip_alone_finds_damage_in_image_data(good, tmp_path):
    """What a plain h5py reader notices: DEFLATE's Adler-32 (its unused last bits apart)."""
    with h5py.File(good) as root:
        chunk, before = root["train/hu"].id.get_chunk_info(1), root["train/hu"][1]
    data, silent = good.read_bytes(), 0
    for bit in random.Random(3).sample(range(chunk.byte_offset * 8, (chunk.byte_offset + chunk.size) * 8), 200):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "flip.h5").write_bytes(damaged)
        with h5py.File(tmp_path / "flip.h5") as root:
            try:
                silent += not np.array_equal(root["train/hu"][1], before)
            except OSError:
                continue
    assert silent == 0


def test_119_verify_says_what_was_altered(copy, capsys):
    with h5py.File(copy, "r+") as root:
        root["train/hu"][1, 2, 3] += 1
        root["lesions"].attrs["note"] = "mine"
    assert main(["verify", str(copy)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    bytes_, first, second = err.splitlines()
    assert "bytes are not those that were written" in bytes_
    assert re.search(r"/train/hu was altered: sha256 [0-9a-f]{12}…, recorded [0-9a-f]{12}….* Do: ", first)
    assert "root's sha256 differs" in second


def places(path):
    """Where in the file these things lie: (offset, size)."""
    with h5py.File(path) as root:
        chunks = {name: root[name].id.get_chunk_info(0) for name in ("train/hu", "test/hu", "lesions/label", "recipe")}
        found = {name: (chunk.byte_offset, chunk.size) for name, chunk in chunks.items()}
    data = path.read_bytes()
    for name, text in (
        ("attribute", b"label_classes"),
        ("digest of a dataset", b"sha256"),
        ("last line", b"\nctpatch "),
    ):
        found[name] = (data.rindex(text), len(text))
    return {**found, "superblock": (0, 48)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "place",
    [
        *("train/hu", "test/hu", "lesions/label", "recipe"),
        *("attribute", "digest of a dataset", "last line", "superblock"),
    ],
)
def test_119_a_flipped_bit_is_found_wherever_it_lies(good, copy, place, seed, capfd):
    offset, size = places(good)[place]
    bit = random.Random(f"{place} {seed}").randrange(offset * 8, (offset + size) * 8)
    data = bytearray(copy.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    copy.write_bytes(data)
    assert main(["verify", str(copy)]) in (1, 2)
    out, err = capfd.readouterr()
    assert out == ""
    assert err
    assert all(re.fullmatch(r"ctpatch: .* Do: .*\.", line) for line in err.splitlines())


def test_119_content_alone_tells_that_it_was_altered(copy, capsys):
    """Someone writes other pixels and seals the file anew: the datasets' digests still say so."""
    with h5py.File(copy, "r+") as root:
        root["train/hu"][1, 2, 3] += 1
    data = copy.read_bytes()  # h5py has cut the last line off
    assert b"\nctpatch sha256 " not in data
    copy.write_bytes(data + b"\nctpatch sha256 " + hashlib.sha256(data).hexdigest().encode() + b"\n")
    assert main(["verify", str(copy)]) == 1
    assert "/train/hu" in capsys.readouterr().err


def test_verify_and_info_of_a_good_store(good, capsys):
    assert main(["verify", str(good)]) == 0
    assert "whole and unaltered" in capsys.readouterr().out
    assert main(["info", str(good)]) == 0
    assert "4 patches" in capsys.readouterr().out


def test_verify_reports_its_progress(good):
    pieces = []
    with open_store(good) as store:
        assert verify_store(store.file, pieces.append) == []
        total = sum(item.size * item.dtype.itemsize for item in (store.file["train/hu"], store.file["test/hu"]))
    assert sum(pieces) > total


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("/", {"x": h5py.Empty("f4")}),
        ("/lesions", {"x": np.array([np.nan])}),
        ("/train/hu", {"sha256": 5}),
        ("/train/hu", {"sha256": np.zeros(3)}),
        ("/", {"sha256": np.bytes_(b"\x1b[31mred")}),
        ("/train/hu", {"sha256": "of variable length"}),
    ],
)
def test_119_odd_attributes_are_reported(copy, path, change, capfd):
    with h5py.File(copy, "r+") as root:
        for name, value in change.items():
            root[path].attrs[name] = value
    assert main(["verify", str(copy)]) == 1
    err = capfd.readouterr().err
    assert "\x1b" not in err
    assert all(line.startswith("ctpatch: ") for line in err.splitlines())


# -- Cut off, incomplete, something else --------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.99])
def test_118_truncated(copy, share, capfd):
    data = copy.read_bytes()
    copy.write_bytes(data[: int(share * len(data))])
    refused(copy, "truncated", capfd)


@pytest.mark.parametrize("cut", [1, 40, 81])
def test_118_cut_last_line_is_reported(copy, cut, capsys):
    copy.write_bytes(copy.read_bytes()[:-cut])
    assert main(["verify", str(copy)]) == 1
    assert capsys.readouterr().err.count("bytes are not those that were written") == 1


def test_121_missing_or_a_folder(tmp_path, capfd):
    refused(tmp_path / "none.h5", "no such store", capfd)
    refused(tmp_path, "no such store", capfd)


def test_121_something_else(tmp_path, capfd):
    (tmp_path / "text.h5").write_text("patient_id,image\n")
    refused(tmp_path / "text.h5", "not a readable HDF5 file", capfd)
    with h5py.File(tmp_path / "other.h5", "w") as root:
        root["train/hu"] = np.zeros((1, 64, 64), np.int16)
    refused(tmp_path / "other.h5", "not a ctpatch store", capfd)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("version", 2, "store version 2, this ctpatch reads version 1"),
        ("version", np.array([1, 1]), "store version"),
        ("version", np.bytes_(b"1"), "store version 1"),
        ("version", "1", "store version None"),
        ("format", "keras", "not a ctpatch store"),
        ("format", np.array([1, 2]), "not a ctpatch store"),
        ("complete", False, "incomplete"),
        ("complete", np.array([True, False]), "incomplete"),
    ],
)
def test_118_120_121_wrong_root_attributes(copy, name, value, says, capfd):
    with h5py.File(copy, "r+") as root:
        root.attrs[name] = value
    refused(copy, says, capfd)


@pytest.mark.parametrize(
    ("path", "name", "says"),
    [
        ("/", "format", "not a ctpatch store"),
        ("/", "sha256", "/ lacks a readable sha256"),
        ("/lesions", "label_classes", "lacks a readable label_classes"),
        ("/lesions", "aux_classes", "lacks a readable aux_classes"),
    ],
)
def test_121_text_of_variable_length_is_not_read(copy, path, name, says, capfd):
    """It lies in a heap, and a length of 0 in that heap keeps HDF5 busy for ever."""
    with h5py.File(copy, "r+") as root:
        text = root[path].attrs[name]
        text = text.decode() if isinstance(text, bytes) else [word.decode() for word in text]
        root[path].attrs.create(name, text, dtype=h5py.string_dtype())
    data = copy.read_bytes()
    heap = data.index(b"GCOL") + 16
    object_size = struct.pack("<Q", 0)
    copy.write_bytes(data[: heap + 8] + object_size + data[heap + 16 :])
    refused(copy, says, capfd)


@pytest.mark.parametrize("name", ["format", "version", "complete"])
def test_118_120_121_missing_root_attributes(copy, name, capfd):
    with h5py.File(copy, "r+") as root:
        del root.attrs[name]
    refused(copy, "not a ctpatch store|store version None|incomplete", capfd)


# -- Made by a stranger -------------------------------------------------------------------------------------------


def replace(path, name, make):
    """Replace an object by what `make(root, name)` puts there."""
    with h5py.File(path, "r+") as root:
        if name in root:
            del root[name]
        make(root, name)


def elsewhere(tmp_path):
    """A store-like file with a secret in it."""
    with h5py.File(tmp_path / "secret.h5", "w") as root:
        root["hu"] = np.full((4, 64, 64), 7, np.int16)
    return tmp_path / "secret.h5"


@pytest.mark.parametrize("name", ["train", "train/hu", "lesions/label", "lesions/aux", "lesions/aux/m", "recipe"])
def test_122_links_are_refused(copy, tmp_path, name, capfd):
    other = elsewhere(tmp_path)
    for link in (h5py.ExternalLink(str(other), "/hu"), h5py.ExternalLink("none.h5", "/hu"), h5py.SoftLink("/val/hu")):
        replace(copy, name, lambda root, name, link=link: root.__setitem__(name, link))
        refused(copy, "is a link to elsewhere", capfd)


def test_122_external_storage_is_refused(copy, tmp_path, capfd):
    (tmp_path / "secret.bin").write_bytes(bytes(4 * 64 * 64 * 2))
    space = h5py.h5s.create_simple((4, 64, 64))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_external(str(tmp_path / "secret.bin").encode(), 0, 4 * 64 * 64 * 2)
    replace(
        copy, "train/hu", lambda root, name: h5py.h5d.create(root.id, name.encode(), h5py.h5t.STD_I16LE, space, plist)
    )
    refused(copy, "keeps its data elsewhere", capfd)


def test_122_virtual_dataset_is_refused(copy, tmp_path, capfd):
    layout = h5py.VirtualLayout((4, 64, 64), "<i2")
    layout[:] = h5py.VirtualSource(str(elsewhere(tmp_path)), "hu", (4, 64, 64))
    replace(copy, "train/hu", lambda root, name: root.create_virtual_dataset(name, layout))
    refused(copy, "keeps its data elsewhere", capfd)


@pytest.mark.parametrize("name", ["extra", "train/pixels", "lesions/name", "lesions/aux/x", "skipped/\x1b[31m"])
def test_122_undeclared_objects_are_refused(copy, name, capfd):
    replace(copy, name, lambda root, name: root.__setitem__(name, np.zeros(3)))
    refused(copy, "undeclared object", capfd)
    assert "\x1b" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "name", ["train", "skipped", "recipe", "test/hu", "val/shift", "lesions/split", "lesions/aux", "lesions/aux/m"]
)
def test_121_missing_objects_are_refused(copy, name, capfd):
    replace(copy, name, lambda root, name: None)
    refused(copy, f"lacks '{name.rpartition('/')[2]}'", capfd)


@pytest.mark.parametrize("name", ["train", "lesions", "lesions/aux"])
def test_121_dataset_in_place_of_a_group(copy, name, capfd):
    replace(copy, name, lambda root, name: root.__setitem__(name, np.zeros(3)))
    refused(copy, "is not a group|lacks a readable aux_classes", capfd)


@pytest.mark.parametrize("name", ["train/hu", "recipe", "lesions/aux/m"])
def test_121_group_in_place_of_a_dataset(copy, name, capfd):
    replace(copy, name, lambda root, name: root.create_group(name))
    refused(copy, "is not a dataset", capfd)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("train/hu", np.zeros((4, 64, 64), np.int32), r"int32 \(4, 64, 64\), not <i2 \(N, 64, 64\)"),
        ("train/hu", np.zeros((4, 64, 64), ">i2"), "not <i2"),
        ("train/hu", np.zeros((4, 64, 65), np.int16), r"\(4, 64, 65\)"),
        ("train/hu", np.zeros((3, 64, 64), np.int16), "differ in length"),
        ("train/angle", np.float64(3), r"\(\)"),
        ("lesions/label", np.zeros(4), "float64"),
        ("lesions/label", ["a"] * 4, "object"),
        ("lesions/aux/m", np.zeros(3), "differs in length"),
        ("recipe", np.zeros((2, 2), np.uint8), r"\(2, 2\)"),
        ("recipe", h5py.Empty("u1"), "recipe"),
    ],
)
def test_121_123_other_types_and_shapes_are_refused(copy, name, value, says, capfd):
    replace(copy, name, lambda root, name: root.create_dataset(name, data=value))
    refused(copy, says, capfd)


def test_123_shape_bomb_is_refused_at_once(copy, capfd):
    def make(root, name):
        root.create_dataset(name, (2**30, 64, 64), "<i2", chunks=(1, 64, 64), compression="gzip")

    replace(copy, "train/hu", make)
    refused(copy, "claims 8796093022208 bytes in a file of", capfd)


def test_123_chunk_bomb_is_refused(copy, capfd):
    def make(root, name):
        root.create_dataset(name, (4,), "<f8", chunks=(2**28,), maxshape=(None,), compression="gzip")

    replace(copy, "train/angle", make)
    refused(copy, "claims 2147483648 bytes in a file of", capfd)


def test_124_other_filters_are_refused(copy, capfd):
    replace(
        copy,
        "train/angle",
        lambda root, name: root.create_dataset(name, data=np.zeros(4), compression="lzf"),
    )
    refused(copy, "filter", capfd)


def test_123_chunk_that_inflates_to_more_than_it_may(copy, capfd):
    """A stream of 100 MB in the place of 8 KiB."""
    with h5py.File(copy, "r+") as root:
        root["train/hu"].id.write_direct_chunk((1, 0, 0), zlib.compress(bytes(10**8)))
    assert main(["verify", str(copy)]) == 1
    assert "/train/hu cannot be read" in capfd.readouterr().err


def test_123_chunk_without_its_filter(copy, capfd):
    with h5py.File(copy, "r+") as root:
        root["train/hu"].id.write_direct_chunk((1, 0, 0), bytes(8192), filter_mask=1)
    assert main(["verify", str(copy)]) == 1
    assert "/train/hu cannot be read" in capfd.readouterr().err


@pytest.mark.parametrize("size", [70_000, 900_000, 2**20 + 1, 8 * 2**20])
def test_125_huge_documents_of_one_s_own(tmp_path, size, capfd):
    """JSON lies in a dataset, not in an attribute: no limit of 64 KiB."""
    path = tmp_path / "own.h5"
    with StoreWriter(path, label_classes=["a"], rgb=False, recipe={"note": "x" * size}) as store:
        store.add(patient_id="p", split="test", label="a", hu=np.zeros((1, 64, 64), np.int16))
    with open_store(path) as store:
        assert len(store.recipe["note"]) == size
    assert main(["verify", str(path)]) == 0
    assert main(["info", str(path)]) == 0


@pytest.mark.parametrize("name", ["note", "sha256", "format"])
def test_125_huge_attributes_of_a_stranger(copy, name, capfd):
    with h5py.File(copy, "r+", libver="latest") as root:
        root.attrs[name] = "x" * 10**6
    assert main(["verify", str(copy)]) in (1, 2)
    assert len(capfd.readouterr().err) < 2000


def test_125_a_document_beyond_the_limit_is_refused(copy, capfd):
    size = 64 * 2**20 + 1

    def make(root, name):
        root.create_dataset(name, (size,), "u1", chunks=(2**20,), compression="gzip")[:] = 32

    replace(copy, "recipe", make)
    refused(copy, f"/recipe holds {size} bytes", capfd)


@pytest.mark.parametrize("value", ["{", "[]", "3", '{"m": {"x": "y"}}', '{"m": 3}', 5, np.zeros(3)])
def test_125_unreadable_levels_are_refused(copy, value, capfd):
    with h5py.File(copy, "r+") as root:
        root["lesions"].attrs["aux_classes"] = value
    refused(copy, "aux_classes", capfd)


@pytest.mark.parametrize("text", [b"[1]", b"{", b"\xff\xfe", b"null", b"3"])
def test_125_documents_that_are_no_objects(copy, text, capfd):
    replace(copy, "recipe", lambda root, name: root.create_dataset(name, data=np.frombuffer(text, np.uint8)))
    assert main(["info", str(copy)]) == 2
    assert re.fullmatch(r"ctpatch: .*recipe is not a JSON object\. Do: .*\n", capfd.readouterr().err)


def test_121_text_that_is_not_utf8(copy, capfd):
    with h5py.File(copy, "r+") as root:
        del root["lesions/label"]
        kind = h5py.string_dtype("utf-8", 2)
        root.create_dataset("lesions/label", data=np.array([b"\xff\xfe"] * 4, "S2").astype(kind))
    assert main(["info", str(copy)]) == 2
    assert re.fullmatch(r"ctpatch: .*label is not UTF-8\. Do: .*\n", capfd.readouterr().err)


def test_124_no_hdf5_noise_from_a_process_of_its_own(copy):
    data = bytearray(copy.read_bytes())
    with h5py.File(copy) as root:
        at = h5py.h5o.get_info(root["train"].id).addr
    data[at + 20] ^= 255
    copy.write_bytes(data)
    done = subprocess.run([sys.executable, "-m", "ctpatch", "verify", str(copy)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"ctpatch: .*structure is damaged\. Do: .*\n", done.stderr)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL])
def test_124_a_crash_of_the_reader_is_a_message(good, number, apart, monkeypatch, capfd):
    """libhdf5 crashes on crafted files; here a reader that kills itself by the same signals stands for it."""
    monkeypatch.setattr("ctpatch.cli._verify_store", crashing.READERS[number])
    assert main(["verify", str(good)]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    pattern = rf"ctpatch: .*: the process that read it crashed \(killed by signal {number:d}\): .*\. Do: .*\.\n"
    assert re.fullmatch(pattern, err)


def test_124_verify_in_a_process_of_its_own(good, tmp_path, apart, capfd):
    assert main(["verify", str(good)]) == 0
    assert capfd.readouterr().out == f"{good}: whole and unaltered\n"
    assert main(["verify", str(tmp_path / "none.h5")]) == 2
    assert "no such store" in capfd.readouterr().err


def test_121_refused_store_is_not_left_open(copy):
    with h5py.File(copy, "r+") as root:
        root.attrs["version"] = 3
    with pytest.raises(InputError):
        open_store(copy)
    with h5py.File(copy, "r+"):  # HDF5 refuses this while a reader has the file open
        pass
