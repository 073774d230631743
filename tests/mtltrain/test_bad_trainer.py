"""Section I of the list of awkward inputs (cases 141-156), and the trainer's part of F and G, through the command.

Kills are real: the command runs in a forked child that sends itself SIGKILL at a chosen write, sync, rename or step.
"""

import errno
import fcntl
import multiprocessing
import os
import pickle
import re
import resource
import shutil
import signal
from math import comb
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from calls import BOUNDED_S, in_fork
from torch.utils.data import DataLoader
from toystore import CLASSES, LEVELS, discs, write_store

from ctpatch import StoreWriter, open_store
from ctpatch.store import IMAGENET
from mtltrain import checkpoints, files, fit, folder, models
from mtltrain.cli import main
from mtltrain.data import PatchDataset
from mtltrain.folder import locked

SMALL = ["--backbone", "shufflenet_v2_x0_5", "--device", "cpu", "--batch-size", "5"]
STL = [*SMALL, "--arch", "stl-ri"]
COUNTS = {"train": 10, "val": 4, "test": 4}


pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("toy") / "toy.h5", COUNTS, patches=1)


@pytest.fixture(scope="module")
def whole(toy):
    """The folder of an undisturbed run of three epochs."""
    assert main(["fit", str(toy), *STL, "--epochs", "3", "--out", str(toy.parent / "whole")]) == 0
    return toy.parent / "whole"


def write_rows(path, rows, pixels=None, classes=CLASSES):
    """A store of these lesions, (patient_id, split, class index, more), a patch each: a disc, or that in `pixels`."""
    rng = np.random.default_rng(0)
    with StoreWriter(path, label_classes=classes, aux_levels=LEVELS, rgb=False) as store:
        for k, (patient, split, index, more) in enumerate(rows):
            hu = discs(rng, 1, 6 + 8 * index)
            hu = (pixels or {}).get(k, hu)
            store.add(patient_id=patient, split=split, label=classes[index], hu=hu, **more)
    return path


def rows(n=6, **more):
    """Two lesions a split: one of each class."""
    return [(f"P{k}", ("train", "val", "test")[3 * k // n], k % 2, more) for k in range(n)]


def finish(store, out, *words):
    return main(["fit", str(store), *STL, *words, "--out", str(out)])


def refused(capfd, says, status=2):
    printed = capfd.readouterr()
    assert re.fullmatch(r"mtltrain: .* Do: .*\.\n", printed.err), printed.err
    assert re.search(says, printed.err), printed.err
    assert "Traceback" not in printed.out
    return status


def call_refused(call, capfd, says, status=2):
    capfd.readouterr()
    assert main(list(map(str, call))) == refused(capfd, says, status)


def in_child(prepare, call):
    """The command's end in a forked child: 0, 1, 2, or minus the signal that killed it."""

    def act():
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 1)
        prepare()
        return main(call)

    return in_fork(act)


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(function, number):
    """`function`, but for its `number`th call."""
    left = iter(range(number - 1))
    return lambda *args, **kwargs: die() if next(left, None) is None else function(*args, **kwargs)


def torn(function, number):
    """A torch.save of which the `number`th call is killed half-way through the bytes."""
    left = iter(range(number - 1))

    def save(state, file):
        if next(left, None) is not None:
            return function(state, file)
        function(state, file)
        file.truncate(file.tell() // 2)
        file.flush()
        return die()

    return save


def same_end(one, two):
    tables = [(folder / "predictions.csv").read_bytes() for folder in (one, two)]
    states = [checkpoints.load_checkpoint(folder / "stl-ri/seed-0/best.pt") for folder in (one, two)]
    return tables[0] == tables[1] and checkpoints.digest(states[0]) == checkpoints.digest(states[1])


def every_epoch():
    """As where epochs are long: each is on the disk before the next one begins."""
    keep = checkpoints.Saver.keep

    def kept(saver, *args, **words):
        keep(saver, *args, **words)
        saver.wait()

    checkpoints.Saver.keep, checkpoints.SHARE["cpu"] = kept, 1e9


def interrupted(toy, out, epochs=2):
    """A folder whose run was killed after so many epochs."""
    step = 2 * epochs + 1  # two batches an epoch

    def prepare():
        every_epoch()
        fit._Session.step = at_call(fit._Session.step, step)

    assert in_child(prepare, ["fit", str(toy), *STL, "--epochs", "3", "--out", str(out)]) == -signal.SIGKILL
    return out / "stl-ri/seed-0"


# -- 141, 143: killed ----------------------------------------------------------------------------------------------

MOMENTS = [
    *[(os, "fsync", number) for number in (1, 2, 3, 5, 9)],
    *[(os, "replace", number) for number in (1, 2, 3, 4, 6, 10)],
    *[(torch, "save", number) for number in (1, 2, 4)],
]


@pytest.mark.parametrize(("module", "name", "number"), MOMENTS, ids=[f"{name} {number}" for _, name, number in MOMENTS])
def test_141_killed_while_saving(toy, whole, tmp_path, module, name, number):
    """No checkpoint that has its name is ever half a one, and the command goes on to the same end."""
    change = torn if name == "save" else at_call
    out = tmp_path / "out"

    def prepare():
        every_epoch()
        setattr(module, name, change(getattr(module, name), number))

    assert in_child(prepare, ["fit", str(toy), *STL, "--epochs", "3", "--out", str(out)]) == -signal.SIGKILL
    for path in [*out.rglob("*.pt"), *out.rglob("*.old")]:
        checkpoints.load_checkpoint(path)
    assert finish(toy, out, "--epochs", "3") == 0
    assert same_end(out, whole)
    assert not [*out.rglob("*.tmp"), *out.rglob("last.*")]


def test_141_the_last_two_are_kept_with_their_digest(toy, tmp_path):
    folder = interrupted(toy, tmp_path / "out")
    for name, epochs in (("last.pt", 2), ("last.old", 1)):
        state = torch.load(folder / name, weights_only=True)
        assert re.fullmatch("[0-9a-f]{64}", state["sha256"])
        assert len(state["history"]) == epochs


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_141_the_one_before_stands_in_for_a_damaged_one(toy, whole, tmp_path, damage, capfd):
    folder = interrupted(toy, tmp_path / "out")
    harm(folder / "last.pt", damage)
    assert finish(toy, tmp_path / "out", "--epochs", "3") == 0
    assert "goes on after epoch 1" in capfd.readouterr().out
    assert same_end(tmp_path / "out", whole)


def test_141_both_damaged(toy, tmp_path, capfd):
    folder = interrupted(toy, tmp_path / "out")
    for name in ("last.pt", "last.old"):
        harm(folder / name, "cut")
    call_refused(["fit", toy, *STL, "--epochs", "3", "--out", tmp_path / "out"], capfd, r"last\.pt: no readable checkp")


def harm(path, damage):
    data = bytearray(path.read_bytes())
    weight = checkpoints.load_checkpoint(path)["model"]["backbone.fc.weight"].numpy().tobytes()
    data[data.index(weight)] ^= 1
    path.write_bytes(data if damage == "flip" else data[: len(data) // 2])


def given(*aucs):
    """A validation that finds these, whatever the network says."""
    return lambda session: aucs[len(session.history)]


def killed_at_epoch_3(call, file):
    """The command, killed before it writes that file: until then each epoch was the best so far."""
    write = checkpoints.save_checkpoint

    def save(path, state, **words):
        (die if (path.name, len(state["history"])) == (file, 3) else write)(path, state, **words)

    def prepare():
        every_epoch()
        fit._Session.validate, checkpoints.save_checkpoint = given(0.5, 0.6, 0.9), save

    assert in_child(prepare, call) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("file", "aucs", "best"),
    [("last.pt", (0.5, 0.6, 0.55, 0.55), 2), ("best.pt", (0.5, 0.4, 0.4, 0.4), 1)],
    ids=["best.pt is ahead", "last.pt is damaged"],
)
def test_141_an_epoch_that_comes_out_otherwise_when_done_again(toy, tmp_path, file, aucs, best, monkeypatch):
    """On a GPU, or with other threads: best.pt is of the best epoch that the run's history has."""
    call = ["fit", str(toy), *STL, "--epochs", "4", "--out", str(tmp_path)]
    killed_at_epoch_3(call, file)
    if file == "best.pt":
        harm(tmp_path / "stl-ri/seed-0/last.pt", "cut")
    monkeypatch.setattr(fit._Session, "validate", given(*aucs))
    assert main(call) == 0
    history = checkpoints.load_checkpoint(tmp_path / "stl-ri/seed-0/best.pt")["history"]
    assert [entry["val_auc"] for entry in history] == list(aucs[:best])
    assert not [*tmp_path.rglob("*.old")]


def test_141_a_best_epoch_that_is_lost(toy, tmp_path, monkeypatch, capfd):
    call = ["fit", str(toy), *STL, "--epochs", "4", "--out", str(tmp_path)]
    killed_at_epoch_3(call, "last.pt")
    (tmp_path / "stl-ri/seed-0/best.old").unlink()
    monkeypatch.setattr(fit._Session, "validate", given(0.5, 0.6, 0.55, 0.55))
    call_refused(call, capfd, "seed-0: best.pt is not of the best epoch. Do: delete this folder and train again", 1)
    shutil.rmtree(tmp_path / "stl-ri/seed-0")
    assert main(call) == 0


def test_141_killed_before_clearing_up(toy, whole, tmp_path):
    def prepare():
        write = folder.write_csv
        folder.write_csv = lambda path, table: (write(path, table), path.name == "predictions.csv" and die())

    call = ["fit", str(toy), *STL, "--epochs", "3", "--out", str(tmp_path)]
    assert in_child(prepare, call) == -signal.SIGKILL
    assert [*tmp_path.rglob("last.pt")]
    assert main(call) == 0
    assert {path.name for path in tmp_path.rglob("seed-0/*")} == {path.name for path in whole.rglob("seed-0/*")}


@pytest.mark.parametrize(("step", "share"), [(3, 0.02), (6, 0.0), (6, 1e9)])
def test_killed_while_it_is_saved_beside_the_training(toy, whole, tmp_path, step, share):
    """Whether nothing of an epoch, part of it or all has been written: the same end."""

    def prepare():
        checkpoints.SHARE["cpu"] = share
        fit._Session.step = at_call(fit._Session.step, step)

    call = ["fit", str(toy), *STL, "--epochs", "3", "--out", str(tmp_path)]
    assert in_child(prepare, call) == -signal.SIGKILL
    assert main(call) == 0
    assert same_end(tmp_path, whole)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6])
def test_143_killed_in_an_epoch(toy, whole, tmp_path, step):
    def prepare():
        fit._Session.step = at_call(fit._Session.step, step)

    call = ["fit", str(toy), *STL, "--epochs", "3", "--out", str(tmp_path)]
    assert in_child(prepare, call) == -signal.SIGKILL
    torch.rand(step)  # what happens in between does not matter
    assert main(call) == 0
    assert same_end(tmp_path, whole)


# -- 142: malicious ------------------------------------------------------------------------------------------------


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def poison(path, ran, kind):
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Payload(ran), protocol=2))
    else:
        torch.save({"model": {"w": Payload(ran)}, "sha256": "0" * 64}, path)


@pytest.mark.parametrize("kind", ["pickle", "archive"])
@pytest.mark.parametrize("use", ["weights", "predict", "resume"])
def test_142_malicious_checkpoint(toy, whole, tmp_path, kind, use, capfd):
    """Refused, and its payload does not run."""
    ran, out = tmp_path / "ran", tmp_path / "out"
    if use == "weights":
        poison(tmp_path / "w.pt", ran, kind)
        call = ["fit", toy, *SMALL, "--arch", "stl-tl", "--weights", tmp_path / "w.pt", "--out", out]
    elif use == "predict":
        shutil.copytree(whole, out)
        poison(out / "stl-ri/seed-0/best.pt", ran, kind)
        call = ["predict", out, toy, "--out", tmp_path / "p.csv"]
    else:
        shutil.copytree(whole, out)
        (out / "stl-ri/seed-0/predictions.csv").unlink()
        poison(out / "stl-ri/seed-0/last.pt", ran, kind)
        call = ["fit", toy, *STL, "--epochs", "3", "--out", out]
    call_refused(call, capfd, r"\.pt: no readable checkpoint \(UnpicklingError\)")
    assert not ran.exists()
    assert not (tmp_path / "p.csv").exists()


def test_142_altered_checkpoint(toy, whole, tmp_path, capfd):
    out = shutil.copytree(whole, tmp_path / "out")
    harm(out / "stl-ri/seed-0/best.pt", "flip")
    call_refused(["predict", out, toy, "--out", tmp_path / "p.csv"], capfd, "content differs from its sha256")


# -- 144: one random number for one thing ----------------------------------------------------------------------------


def test_144_a_run_does_not_depend_on_what_ran_before_it(toy, whole, tmp_path):
    assert finish(toy, tmp_path, "--epochs", "3", "--seeds", "1", "0") == 0
    seeds = (tmp_path / "stl-ri/seed-0", whole / "stl-ri/seed-0", tmp_path / "stl-ri/seed-1")
    one, two, other = (checkpoints.digest(checkpoints.load_checkpoint(folder / "best.pt")["model"]) for folder in seeds)
    assert one == two != other


def test_144_patches_do_not_depend_on_workers(toy):
    with open_store(toy) as store:
        data = PatchDataset(store, "train")
        one, two = (list(DataLoader(data, 4, num_workers=n)) for n in (0, 2))
    assert len(one) == 3
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


# -- 145, 153: a loss that makes no sense, memory that runs out ------------------------------------------------------


def test_145_learning_rate_beyond_reason(toy, tmp_path, capfd):
    call_refused(["fit", toy, *STL, "--lr", "1e30", "--out", tmp_path], capfd, r"not finite in epoch 1.* P00\d\d/1", 1)
    assert not [*tmp_path.rglob("*.pt"), *tmp_path.rglob("predictions.csv")]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_145_not_finite_after_an_epoch(toy, tmp_path, bad, monkeypatch, capfd):
    folder = interrupted(toy, tmp_path, epochs=1)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    loss = models.multitask_loss
    monkeypatch.setattr(models, "multitask_loss", lambda *args: loss(*args) * bad)
    says = r"stl-ri/seed-0: the loss .* in epoch 2, in a batch of lesions P00\d\d/1, P00.*; .*best\.pt is of epoch 1"
    call_refused(["fit", toy, *STL, "--epochs", "3", "--out", tmp_path], capfd, says, 1)
    assert before == {path: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 123 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["host", "torch", "allocator", "cublas"],
)
def test_153_out_of_memory(toy, whole, tmp_path, error, monkeypatch, capfd):
    folder = interrupted(toy, tmp_path, epochs=1)
    before = {path: path.read_bytes() for path in folder.iterdir()}

    def full(*args):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(models, "forward", full)
        says = r"out of memory on cpu at a peak of \d+ MiB with batches of 5 patches of 64 x 64 .* Do: lower --batch"
        call_refused(["fit", toy, *STL, "--epochs", "3", "--out", tmp_path], capfd, says, 1)
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    assert finish(toy, tmp_path, "--epochs", "3") == 0
    assert same_end(tmp_path, whole)


def test_153_out_of_memory_in_predict(toy, whole, tmp_path, monkeypatch, capfd):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(models, "forward", full)
    says = r"out of memory on cpu at a peak of \d+ MiB with batches of 5 patches of 64 x 64 .* Do: use --device cpu"
    call_refused(["predict", whole, toy, "--out", tmp_path / "p.csv"], capfd, says, 1)
    assert not (tmp_path / "p.csv").exists()


def test_153_out_of_memory_for_real(tmp_path, capfd):
    store = write_store(tmp_path / "s.h5", {"train": 20, "val": 4, "test": 4})

    def prepare():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)

    call = ["fit", str(store), "--arch", "stl-ri", "--batch-size", "400", "--device", "cpu", "--out", str(tmp_path)]
    assert in_child(prepare, call) == 1
    said = r"mtltrain: out of memory on cpu at a peak of \d+ MiB with batches of 400 .*\n"
    assert re.fullmatch(said, capfd.readouterr().err)


# -- 101, 146-152: what the store holds ------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("value", [-1024, 0])
def test_146_constant_patch(tmp_path, split, value, capfd):
    chosen = {"train": 0, "val": 2, "test": 4}[split]
    store = write_rows(tmp_path / "s.h5", rows(), {chosen: np.full((1, 64, 64), value, np.int16)})
    assert finish(store, tmp_path / "out", "--epochs", "1") == 0
    assert f"{split}: 1 of 2 patches are of one HU throughout" in capfd.readouterr().out
    assert "1 of 2 patches are of one HU" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("left", [0, 1])
def test_147_one_class_test_split(tmp_path, left, capfd):
    lesions = [*rows()[:4], ("P8", "test", left, {}), ("P9", "test", left, {})]
    assert finish(write_rows(tmp_path / "s.h5", lesions), tmp_path / "out", "--epochs", "1") == 0
    printed = capfd.readouterr().out
    counts = {CLASSES[left]: 2, CLASSES[1 - left]: 0}
    assert f"{counts['benign']} of class benign, {counts['malignant']} of class malignant" in printed
    metrics = files.read_json(tmp_path / "out/metrics.json")["runs"]["stl-ri"]["metrics"]
    assert metrics["auc"] == {"value": None, "low": None, "high": None, "reason": "a class has no test lesion"}
    assert "STL+RI AUC: a class has no test lesion" in printed


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("index", [0, 1])
def test_101_one_class_to_learn_from(tmp_path, split, index, capfd):
    lesions = [(name, s, index if s == split else k, more) for name, s, k, more in rows()]
    store = write_rows(tmp_path / "s.h5", lesions)
    call_refused(["fit", store, *STL, "--out", tmp_path / "out"], capfd, f"{split} has 2 of {CLASSES[index]}")
    assert not (tmp_path / "out").exists()


def write_aux(path, known, classes=CLASSES):
    """24 lesions whose size follows the class; `known(k, split)` says its level, NaN where unknown."""
    splits = ["train"] * 12 + ["val"] * 4 + ["test"] * 8
    lesions = [
        (f"P{k:02d}", split, k % 2, {"aux": {"size": known(k, split), "noise": 1.0}}) for k, split in enumerate(splits)
    ]
    return write_rows(path, lesions, classes=classes)


@pytest.mark.parametrize("every", [3, 5, 12])
def test_148_characteristics_missing(tmp_path, every, capfd):
    """Known in part: the lesion without it is trained on too."""
    store = write_aux(tmp_path / "s.h5", lambda k, split: float(k % 2) if k % every else np.nan)
    out = tmp_path / "out"
    assert main(["fit", str(store), *SMALL, "--arch", "mtl-ri", "--epochs", "1", "--out", str(out)]) == 0
    known = sum(k % every > 0 for k in range(12))
    positive = sum(k % every > 0 and k % 2 for k in range(12))
    p = (1 + (2 * positive == known)) / comb(known, positive)  # of all orders those that are as good
    found = re.search(rf"size +1\.000 +(0\.\d\d\d) +{known} +yes +(\w+)", capfd.readouterr().out)
    assert float(found[1]) == pytest.approx(p, abs=0.0015)
    assert found[2] == ("exact" if known <= 8 else "permutation")
    assert np.isfinite(pd.read_csv(out / "history.csv")["train_loss"]).all()


def test_148_known_of_one_class_only(tmp_path, capfd):
    store = write_aux(tmp_path / "s.h5", lambda k, split: float(k % 2) if k % 2 else np.nan)
    call_refused(["fit", store, *SMALL, "--out", tmp_path / "out"], capfd, "none of 2 characteristics is related")


def test_148_nothing_known(tmp_path, capfd):
    store = write_aux(tmp_path / "s.h5", lambda k, split: np.nan)
    call_refused(["fit", store, *SMALL, "--out", tmp_path / "out"], capfd, "none of 2 characteristics is related")
    assert finish(store, tmp_path / "out", "--epochs", "1") == 0
    assert "fewer than 3 known" in capfd.readouterr().out


@pytest.mark.parametrize("level", [0.0, 3.0])
def test_149_one_level(tmp_path, level, capfd):
    store = write_aux(tmp_path / "s.h5", lambda k, split: level)
    assert finish(store, tmp_path / "out", "--epochs", "1") == 0
    assert re.search(r"size +undefined +undefined +12 +no +constant", capfd.readouterr().out)


def test_150_class_only_in_test(tmp_path, capfd):
    lesions = [*rows(), ("P9", "test", 2, {})]
    store = write_rows(tmp_path / "s.h5", lesions, classes=("T2", "T3", "T4"))
    call = ["fit", store, *STL, "--label-order", "T2", "T3", "T4", "--out", tmp_path / "out"]
    call_refused(call, capfd, "train has 1 of T2, 1 of T3.* each class: T2, T3, T4")


def test_150_level_only_in_test(tmp_path):
    store = write_aux(tmp_path / "s.h5", lambda k, split: 7.0 if split == "test" and k % 4 == 0 else float(k % 2))
    assert main(["fit", str(store), *SMALL, "--arch", "mtl-ri", "--epochs", "1", "--out", str(tmp_path / "out")]) == 0
    table = files.read_csv(tmp_path / "out/auxiliary.csv")
    assert set(table["predicted"]) <= {"0.0", "1.0"}
    known = table[table["split"] == "test"].reset_index()
    assert (known["level"] == "7.0").sum() == 2
    (task,) = files.read_json(tmp_path / "out/metrics.json")["auxiliary"]
    right = known["level"] == known["predicted"]  # no network says 7
    assert (task["lesions"], task["accuracy"]["value"]) == (8, right.mean())
    assert task["majority"] == (known["level"] == known["majority"]).mean()
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert re.search(r"<th>known 7</th>\s*<td>\d</td>\s*<td>\d</td>\s*<td>0</td>", page)


@pytest.mark.parametrize("arch", ["stl-ri", "mtl-ri"])
def test_151_class_order_of_another_store(tmp_path, arch):
    """The same lesions, their classes listed the other way round: the checkpoint's order is what counts."""
    there = {}
    for order in (CLASSES, CLASSES[::-1]):
        path = tmp_path / f"{order[0]}.h5"
        with StoreWriter(path, label_classes=order, aux_levels=LEVELS, rgb=False) as store:
            rng = np.random.default_rng(0)
            for k in range(16):
                split = "train" if k < 8 else "val" if k < 12 else "test"
                hu, aux = discs(rng, 1, 6 + 8 * (k % 2)), {"size": float(k % 2), "noise": 1.0}
                store.add(patient_id=f"P{k:02d}", split=split, label=CLASSES[k % 2], hu=hu, aux=aux)
        there[order] = path
    out = tmp_path / "out"
    assert main(["fit", str(there[CLASSES]), *SMALL, "--arch", arch, "--epochs", "1", "--out", str(out)]) == 0
    tables = []
    for path in there.values():
        assert main(["predict", str(out), str(path), "--out", str(path.with_suffix(".csv"))]) == 0
        tables.append(path.with_suffix(".csv").read_bytes())
    assert tables[0] == tables[1]
    assert main(["fit", str(there[CLASSES[::-1]]), *SMALL, "--arch", arch, "--epochs", "1", "--out", str(out)]) == 2


def test_151_predict_a_store_of_other_classes(whole, tmp_path, capfd):
    other = write_store(tmp_path / "o.h5", COUNTS, classes=("T3", "T4"))
    call_refused(["predict", whole, other], capfd, "'T3' is not one of benign, malignant")


def imbalanced(path):
    """Of 20 training lesions one is positive."""
    train = [(f"A{k:02d}", "train", int(k == 0), {}) for k in range(20)]
    return write_rows(path, [*train, *rows()[2:]])


def test_152_counts_are_told_and_batches_without_a_positive_train(tmp_path, capfd):
    assert finish(imbalanced(tmp_path / "s.h5"), tmp_path / "out", "--epochs", "2") == 0
    printed = capfd.readouterr().out
    assert "train: 19 of benign\ntrain: 1 of malignant\n" in printed
    assert np.isfinite(pd.read_csv(tmp_path / "out/history.csv")["train_loss"]).all()


def test_152_weighting_is_an_option(tmp_path, capfd):
    store, weights = imbalanced(tmp_path / "s.h5"), []
    with pytest.MonkeyPatch.context() as patch:
        loss = models.multitask_loss
        patch.setattr(models, "multitask_loss", lambda *args: (weights.append(args[5]), loss(*args))[1])
        assert finish(store, tmp_path / "plain", "--epochs", "1") == 0
        assert weights == [None] * 4
        assert finish(store, tmp_path / "balanced", "--epochs", "1", "--balanced") == 0
    assert weights[-1].tolist() == pytest.approx([20 / 38, 20 / 2])
    call_refused(["fit", store, *STL, "--epochs", "1", "--out", tmp_path / "balanced"], capfd, "balanced = True, this")


# -- 154, 155: another store, other test lesions ---------------------------------------------------------------------


@pytest.mark.parametrize("state", ["finished", "unfinished"])
@pytest.mark.parametrize("change", ["pixel", "label"])
def test_154_store_changed(toy, whole, tmp_path, state, change, capfd):
    if state == "finished":
        out = shutil.copytree(whole, tmp_path / "out")
    else:
        out = tmp_path / "out"
        interrupted(toy, out, epochs=1)
        (out / "config.json").unlink()  # the checkpoint knows it too
    lesions = {"pixel": {"seed": 1}, "label": {"signal": False}}[change]
    store = write_store(tmp_path / "s.h5", COUNTS, **lesions)
    call = ["fit", store, *STL, "--epochs", "3", "--out", out]
    call_refused(call, capfd, r"made with store(_sha256)? = [0-9a-f]{64}, this call has [0-9a-f]{64}\.")


@pytest.mark.parametrize("what", ["pixels", "labels", "characteristics"])
def test_155_test_lesions_leave_no_trace_in_the_weights(tmp_path, what):
    digests = []
    for k in (0, 1):
        other = [what == part and k == 1 for part in ("pixels", "labels", "characteristics")]
        lesions, hu = [], {}
        for i, split in enumerate(["train"] * 10 + ["val"] * 4 + ["test"] * 6):
            pixels, label, level = (split == "test" and changed for changed in other)
            lesions.append((f"P{i:02d}", split, (i + label) % 2, {"aux": {"size": float(i + level) % 2, "noise": 1.0}}))
            hu[i] = discs(np.random.default_rng([i, pixels]), 1, 9 + i % 2)
        store, out = write_rows(tmp_path / f"{k}.h5", lesions, hu), tmp_path / f"out{k}"
        assert main(["fit", str(store), *SMALL, "--arch", "mtl-ri", "--epochs", "1", "--out", str(out)]) == 0
        digests.append(checkpoints.digest(checkpoints.load_checkpoint(out / "mtl-ri/seed-0/best.pt")["model"]))
    assert digests[0] == digests[1]


def test_155_normalisation_is_torchvisions_constant():
    import torchvision

    preset = torchvision.models.AlexNet_Weights.DEFAULT.transforms()
    assert (tuple(preset.mean), tuple(preset.std)) == IMAGENET


# -- 156: the same bits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--deterministic"]], ids=["plain", "deterministic"])
def test_156_cpu_gives_the_same_bits(toy, whole, tmp_path, words):
    assert finish(toy, tmp_path, "--epochs", "3", *words) == 0
    one, two = (checkpoints.load_checkpoint(f / "stl-ri/seed-0/best.pt")["model"] for f in (tmp_path, whole))
    assert checkpoints.digest(one) == checkpoints.digest(two)


def test_156_deterministic_sets_torch_while_it_trains(toy, tmp_path, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    step, seen = fit._Session.step, []

    def look(self, batch):
        torch_says = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
        seen.append((*torch_says, os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        return step(self, batch)

    monkeypatch.setattr(fit._Session, "step", look)
    assert finish(toy, tmp_path / "plain", "--epochs", "1") == 0
    assert set(seen) == {(False, True, None)}
    seen.clear()
    assert finish(toy, tmp_path / "out", "--epochs", "1", "--deterministic") == 0
    assert set(seen) == {(True, False, ":4096:8")}
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark


def test_156_operation_without_a_deterministic_form(toy, tmp_path, monkeypatch, capfd):
    def none(*args):
        raise RuntimeError("adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but ...")

    monkeypatch.setattr(models, "forward", none)
    call = ["fit", toy, *STL, "--deterministic", "--out", tmp_path]
    call_refused(call, capfd, "--deterministic, but shufflenet_v2_x0_5 needs .*adaptive_avg_pool2d_backward_cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("backbone", ["alexnet", "resnet18", "vgg16"])
def test_156_gpu_gives_the_same_bits_where_asked_to(toy, tmp_path, backbone):
    words = ["--backbone", backbone, "--arch", "mtl-ri", "--epochs", "2", "--device", "cuda", "--deterministic"]
    for name in ("a", "b"):
        assert main(["fit", str(toy), *words, "--out", str(tmp_path / name)]) == 0
    one, two = (checkpoints.load_checkpoint(tmp_path / name / "mtl-ri/seed-0/best.pt") for name in ("a", "b"))
    assert checkpoints.digest(one) == checkpoints.digest(two)


# -- 98, 99: one patient in two splits, 105: formulas, 116: two at once ------------------------------------------------


def rename(path, row, patient):
    """Give a lesion another patient's id, as no writer of ours would."""
    with h5py.File(path, "r+") as root:
        ids = [value.decode() for value in root["lesions/patient_id"][()]]
        ids[row] = patient
        del root["lesions/patient_id"]
        root["lesions"].create_dataset("patient_id", data=np.array([i.encode() for i in ids]), compression="gzip")


@pytest.mark.parametrize("row", [2, 4])
@pytest.mark.parametrize(
    "other",
    ["P0", "p0", " P0", "P0\t", "00P0", "\uff300"],
    ids=["same", "case", "blank", "tab", "zeros", "wide"],
)
def test_98_99_one_patient_in_two_splits(tmp_path, row, other, capfd):
    store = write_rows(tmp_path / "s.h5", rows())
    rename(store, row, other)
    split = {2: "train and val", 4: "test and train"}[row]
    call_refused(["fit", store, *STL, "--out", tmp_path / "out"], capfd, f"patient '.*' is in {split}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("one", "two"), [(0, 2), (1, 5), (3, 4)])
def test_98_the_same_pixels_under_two_ids(tmp_path, one, two, capfd):
    hu = discs(np.random.default_rng(9), 1, 8)
    store = write_rows(tmp_path / "s.h5", rows(), {one: hu, two: hu.copy()})
    says = rf"patient 'P{one}' and 'P{two}' is in .* \(the same pixels\)"
    call_refused(["fit", store, *STL, "--out", tmp_path / "out"], capfd, says)


@pytest.mark.parametrize(("one", "two"), [(0, 3), (2, 5)])
def test_98_the_same_series_under_two_ids(tmp_path, one, two, capfd):
    lesions = [(p, s, k, {"series": "ab12" if i in (one, two) else f"c{i}"}) for i, (p, s, k, _) in enumerate(rows())]
    store = write_rows(tmp_path / "s.h5", lesions)
    says = rf"patient 'P{one}' and 'P{two}' is in .* \(the same series\)"
    call_refused(["fit", store, *STL, "--out", tmp_path / "out"], capfd, says)


def test_98_the_same_pixels_within_a_split_are_no_leak(tmp_path):
    hu = discs(np.random.default_rng(9), 1, 8)
    assert finish(write_rows(tmp_path / "s.h5", rows(), {0: hu, 1: hu}), tmp_path / "out", "--epochs", "1") == 0


def test_105_formulas(tmp_path, capfd):
    """Whatever a spreadsheet would run starts with an apostrophe in every CSV file, and is itself again when read."""
    names = ["'=x", "+1", "-2+3", "=1+1", "=cmd|' /C calc'!A0", "@SUM(1)"]
    lesions = [(names[k], split, index, more) for k, (_, split, index, more) in enumerate(rows())]
    store = write_rows(tmp_path / "s.h5", sorted(lesions), classes=("+", "=1"))
    out = tmp_path / "out"
    assert finish(store, out, "--epochs", "1") == 0
    assert main(["predict", str(out), str(store), "--split", "train", "test", "--out", str(tmp_path / "p.csv")]) == 0
    for path in [tmp_path / "p.csv", *out.rglob("*.csv")]:
        cells = pd.read_csv(path, dtype=str, keep_default_na=False).to_numpy().ravel()
        assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@")]
    with open_store(store) as opened:
        lesions = opened.lesions
    found = files.read_csv(out / "predictions.csv")
    assert list(found["patient_id"]) == list(lesions["patient_id"][lesions["split"] != "train"])
    assert set(found["label"]) == {"+", "=1"}
    assert finish(store, out, "--epochs", "1") == 0


def test_116_two_at_once_on_one_folder(toy, whole, tmp_path, capfd):
    out = shutil.copytree(whole, tmp_path / "out")
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    call = ["fit", toy, *STL, "--epochs", "3", "--seeds", "1", "--out", out]
    with locked(out):
        call_refused(call, capfd, "out: another mtltrain fit is at work in this folder.* --out")
    assert before == {path: path.read_bytes() for path in out.rglob("*.*")}
    assert main(list(map(str, call))) == 0


def test_116_a_forked_process_does_not_keep_the_folder(tmp_path):
    """A loader's worker, say, that ends later: it has the lock's open file too."""
    context = multiprocessing.get_context("fork")
    end = context.Event()
    with locked(tmp_path):
        worker = context.Process(target=end.wait, args=(BOUNDED_S,))
        worker.start()
    with locked(tmp_path):
        assert worker.is_alive()
    end.set()
    worker.join()


def test_116_no_locks(toy, tmp_path, monkeypatch, capfd):
    def flock(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    says = r"out: the file system has no locks: .* Do: name a folder on another file system with --out\."
    call_refused(["fit", toy, *STL, "--out", tmp_path / "out"], capfd, says)


# -- 118-123: stores from strangers ------------------------------------------------------------------------------------


def link(root):
    del root["train/hu"]
    root["train/hu"] = h5py.ExternalLink("/etc/passwd", "/")


def soft(root):
    del root["val/hu"]
    root["val/hu"] = h5py.SoftLink("/test/hu")


def virtual(root):
    layout = h5py.VirtualLayout(root["train/hu"].shape, "<i2")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "hu", layout.shape)
    del root["train/hu"]
    root.create_virtual_dataset("train/hu", layout)


def bomb(root):
    del root["train/hu"]
    root.create_dataset("train/hu", (2**30, 64, 64), "<i2", chunks=(1, 64, 64), compression="gzip")


def version(root):
    root.attrs["version"] = 2


def foreign(root):
    root.attrs["format"] = "keras"


def incomplete(root):
    root.attrs["complete"] = False


@pytest.mark.parametrize("command", ["fit", "predict"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (link, "is a link to elsewhere"),
        (soft, "is a link to elsewhere"),
        (virtual, "keeps its data elsewhere"),
        (bomb, "claims 8796093022208 bytes"),
        (version, "store version 2"),
        (foreign, "not a ctpatch store"),
        (incomplete, "incomplete"),
    ],
)
def test_118_120_121_122_123_strangers_store(toy, whole, tmp_path, change, says, command, capfd):
    store = shutil.copy(toy, tmp_path / "s.h5")
    with h5py.File(store, "r+") as root:
        change(root)
    call = ["fit", store, *STL, "--out", tmp_path / "out"] if command == "fit" else ["predict", whole, store]
    call_refused(call, capfd, says)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.h5"]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_118_truncated_store(toy, tmp_path, share, capfd):
    data = toy.read_bytes()
    (tmp_path / "s.h5").write_bytes(data[: int(share * len(data))])
    call_refused(["fit", tmp_path / "s.h5", *STL, "--out", tmp_path / "out"], capfd, r"s\.h5: not a readable HDF5 file")


def test_119_flipped_bit_in_the_pixels(toy, tmp_path, capfd):
    data = bytearray(toy.read_bytes())
    with h5py.File(toy) as root:
        chunk = root["train/hu"].id.get_chunk_info(3)
    data[chunk.byte_offset + chunk.size // 2] ^= 4
    (tmp_path / "s.h5").write_bytes(data)
    call = ["fit", tmp_path / "s.h5", *STL, "--out", tmp_path / "out"]
    call_refused(call, capfd, "/train/hu cannot be read: .* damaged")
    assert not (tmp_path / "out").exists()
