import h5py
import numpy as np
import pytest

from ctpatch import InputError, StoreWriter, open_store
from ctpatch.store import data_card
from ctpatch.store.summary import describe_store

HU = np.zeros((2, 64, 64), np.int16)


def write(path, *, patients=("1", "2", "3"), reason="no contour", rgb=False, **options):
    settings = {"label_classes": ["T3", "T4"], "aux_levels": {"margin": {1: "poor", 5: "sharp"}}}
    with StoreWriter(path, rgb=rgb, **{**settings, **options}) as store:
        for n, (patient, split) in enumerate(zip(patients, ("train", "train", "test"), strict=True)):
            store.add(
                patient_id=patient,
                split=split,
                label=("T3", "T4", "")[n],
                hu=HU if split == "train" else HU[:1],
                diameter_mm=(4.0, 10.0, np.nan)[n],
                aux={"margin": (1.0, np.nan, 5.0)[n]},
            )
        store.skip("9", "2", reason)
    return path


def test_lines_say_what_is_in_the_store(tmp_path):
    provenance = {"versions": {"numpy": "2.0"}, "notes": {"1 1": ["uneven spacing"]}}
    path = write(tmp_path / "o.h5", recipe={"seed": 4, "patches": 2}, provenance=provenance)
    first, *lines = describe_store(path)
    assert first.startswith(f"{path}: ctpatch store, ")
    assert lines == [
        "train  2 patients, 2 lesions (T3 1, T4 1), 4 patches, HU only",
        "val    0 patients, 0 lesions (none), 0 patches, HU only",
        "test   1 patients, 1 lesions (no label 1), 1 patches, HU only",
        "longest in-slice diameter 4.0 to 10.0 mm, median 7.0 mm",
        "aux_margin: poor: 1, sharp: 1, unknown: 1",
        "skipped: patient 9 lesion 2: no contour",
        "recipe: seed 4, patches 2",
        "made with numpy 2.0",
        "note: 1 1: uneven spacing",
    ]


def test_store_of_another_project_needs_no_recipe(tmp_path):
    lines = describe_store(write(tmp_path / "o.h5", rgb=True, aux_levels={"margin": {}}))
    assert "aux_margin: (1): 1, (5): 1, unknown: 1" in lines
    assert "HU only" not in "".join(lines)
    assert not [line for line in lines if line.startswith(("recipe", "made with", "note"))]


def test_levels_that_a_stranger_s_store_does_not_name_are_counted_by_number(tmp_path):
    path = write(tmp_path / "o.h5", aux_levels={"margin": {}})
    with h5py.File(path, "r+") as file:
        file["lesions"].attrs["aux_classes"] = np.bytes_(b'{"margin":{"1":"poor"}}')
        file["lesions/aux/margin"][1] = np.inf
    assert "aux_margin: poor: 1, (5): 1, (inf): 1, unknown: 0" in describe_store(path)
    with open_store(path) as store:
        assert "poor: 1, 5: 1, inf: 1" in data_card(store)


@pytest.mark.parametrize("notes", ["text", ["a"], {"1": "one"}, {"1": [1, {}]}, None, 7])
def test_documents_of_another_shape(tmp_path, notes):
    assert describe_store(write(tmp_path / "o.h5", provenance={"notes": notes, "versions": notes}))


def test_a_stranger_s_text_adds_no_lines_or_terminal_codes(tmp_path):
    evil = "\x1b[2J\nctpatch: all is well"
    path = write(
        tmp_path / "o.h5",
        patients=("1", "2", f"3{evil}"),
        reason=evil,
        recipe={"seed": evil},
        provenance={"versions": {evil: evil}, "notes": {evil: [evil]}},
    )
    assert all(line.isprintable() for line in describe_store(path))


def test_what_is_no_store(tmp_path):
    with pytest.raises(InputError):
        describe_store(tmp_path / "none.h5")
