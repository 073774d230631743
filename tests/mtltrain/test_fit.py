"""Training: reproducible to the bit, resumed as if never stopped, and stopped where its loss makes no sense.

Checkpoints are whole or absent, never run code, and tell when a byte changed.
"""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from toystore import discs, write_store

from ctpatch import CtpatchError, InputError, StoreWriter, open_store
from mtltrain import Settings, checkpoints, fit, models
from mtltrain.cohort import read_cohort
from mtltrain.data import load_patches
from mtltrain.device import guarded, pick_device
from mtltrain.tasks import select

SETTINGS = Settings("shufflenet_v2_x0_5", epochs=3, batch_size=10)


pytestmark = pytest.mark.usefixtures("narrow")


class Killed(BaseException):
    """Ends a run as a kill does: nothing catches it."""


def train(path, folder, arch="mtl-ri", settings=SETTINGS, watch=lambda batches, title: batches, seed=0):
    with open_store(path) as store, guarded(settings):
        cohort = read_cohort(store, device=settings.device)
        run = fit.Run(arch, seed, settings, cohort, select(cohort)[1])
        return fit.train(run, folder, {}, lambda line: None, watch)


def stop_at(epoch, batch):
    """Watch an epoch's batches and stop before one of them."""

    def watch(batches, title):
        for k, item in enumerate(batches):
            if title.endswith(f"epoch {epoch}") and k == batch:
                raise Killed
            yield item

    return watch


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store, an undisturbed run on it, and that run's history."""
    folder = tmp_path_factory.mktemp("whole")
    return write_store(folder / "s.h5"), folder, train(folder / "s.h5", folder)


def same(one, two):
    return all(
        checkpoints.digest(checkpoints.load_checkpoint(one / name))
        == checkpoints.digest(checkpoints.load_checkpoint(two / name))
        for name in ("best.pt", "last.pt")
    )


def test_nothing_of_a_run_is_named_as_a_setting(whole):
    """So that neither hides the other in its identity: the network has its auxiliary tasks, and knows their names."""
    folder = whole[1]
    saved = checkpoints.load_checkpoint(folder / "best.pt")["run"]
    assert [task["name"] for task in saved["tasks"]] == ["size"]
    assert not {"arch", "seed", "store", "windows", "normalisation", "classes", "tasks"} & set(asdict(Settings()))


def test_other_seed_other_weights(whole, tmp_path):
    path, folder, _ = whole
    train(path, tmp_path, seed=1)
    assert not same(tmp_path, folder)


def test_checkpoint_of_another_store_or_setting(whole, tmp_path):
    path = whole[0]
    with pytest.raises(Killed):
        train(path, tmp_path, watch=stop_at(2, 0))
    with pytest.raises(InputError, match="made with batch_size = 10, this call has 12"):
        train(path, tmp_path, settings=Settings("shufflenet_v2_x0_5", epochs=3, batch_size=12))
    other = write_store(tmp_path / "other.h5", seed=1)
    with pytest.raises(InputError, match="made with store = "):
        train(other, tmp_path)


def test_gradient_that_is_not_finite(whole, tmp_path, monkeypatch):
    """The square root of zero: a loss of 0 with an infinite slope."""
    loss = models.multitask_loss
    monkeypatch.setattr(models, "multitask_loss", lambda *args: loss(*args) + (loss(*args) * 0).sqrt())
    with pytest.raises(CtpatchError, match="not finite in epoch 1"):
        train(whole[0], tmp_path)


def session_of(path):
    torch.manual_seed(0)
    with open_store(path) as store:
        cohort = read_cohort(store)
    return fit._Session(fit.Run("mtl-ri", 0, SETTINGS, cohort, select(cohort)[1]), {})


def state_of(session):
    return checkpoints.digest([dict(session.net.named_parameters()), session.optimizer.state_dict()])


@pytest.mark.parametrize(("poisoned", "look"), [({0}, 1000), ({1, 2}, 1), ({1, 2}, 1000), ({2}, 2)])
def test_a_bad_step_is_not_made_whenever_it_is_noticed(whole, monkeypatch, poisoned, look):
    """Nor any after it: weights and optimiser are those of the steps before, and its own lesions are named."""
    session, twin, loss, batches = session_of(whole[0]), session_of(whole[0]), fit._Session.loss, []

    def bad(self, batch):
        return loss(self, batch) * (float("inf") if any(batch is batches[k] for k in poisoned) else 1)

    def watch(items, title):
        batches.extend(items)
        return items

    with monkeypatch.context() as patch:
        patch.setitem(fit.LOOK, "cpu", look)
        patch.setattr(fit._Session, "loss", bad)
        with pytest.raises(CtpatchError) as error:
            session.epoch(watch, session.step)
    torch.manual_seed(fit.number("dropout", 0, 1))
    twin.net.train()
    for batch in batches[: min(poisoned)]:
        twin.step(batch)
    if poisoned != {0}:  # else the optimiser has no state yet, or zeros
        assert state_of(session) == state_of(twin)
    assert checkpoints.digest(dict(session.net.named_parameters())) == checkpoints.digest(
        dict(twin.net.named_parameters())
    )
    rows = session.run.cohort.lesions.iloc[sorted(set(session.train.lesion[batches[min(poisoned)]].tolist()))]
    names = ", ".join(f"{p}/{k}" for p, k in zip(rows["patient_id"], rows["lesion_id"], strict=True))
    assert f"in epoch 1, in a batch of lesions {names}; the step was not made" in str(error.value)


def test_the_loss_of_an_epoch_is_the_mean_over_its_patches(whole, monkeypatch):
    session, seen, loss = session_of(whole[0]), [], fit._Session.loss

    def told(self, batch):
        value = loss(self, batch)
        seen.append((float(value.detach()), len(batch)))
        return value

    monkeypatch.setattr(fit._Session, "loss", told)
    session.epoch(lambda batches, title: batches, session.step)
    assert session.history[0]["train_loss"] == sum(value * n for value, n in seen) / 24
    assert [n for _, n in seen] == [10, 10, 4]


def test_other_errors_are_not_called_out_of_memory(whole, tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("a bug")

    monkeypatch.setattr(models, "forward", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        train(whole[0], tmp_path)


def test_early_stop_keeps_the_first_best_epoch(whole, tmp_path, monkeypatch):
    aucs = iter([0.5, 0.7, 0.7, 0.6, 0.9])
    monkeypatch.setattr(fit._Session, "validate", lambda self: next(aucs))
    history = train(whole[0], tmp_path, settings=Settings("shufflenet_v2_x0_5", epochs=9, patience=2, batch_size=24))
    assert [entry["val_auc"] for entry in history] == [0.5, 0.7, 0.7, 0.6]
    assert len(checkpoints.load_checkpoint(tmp_path / "best.pt")["history"]) == 2


def test_every_patch_once_an_epoch_in_an_order_of_its_own():
    orders = [fit.shuffled(500, seed, epoch) for seed in (0, 1) for epoch in (1, 2)]
    assert all(sorted(order) == list(range(500)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert np.array_equal(orders[0], fit.shuffled(500, 0, 1))


def test_last_batch_is_kept(whole, tmp_path):
    seen = []

    def watch(batches, title):
        seen.append([len(batch) for batch in batches])
        return batches

    train(whole[0], tmp_path, settings=Settings("shufflenet_v2_x0_5", epochs=1, batch_size=10), watch=watch)
    assert seen == [[10, 10, 4]]


def test_a_lesions_patches_are_averaged(whole):
    with open_store(whole[0]) as store:
        patches = load_patches(store, "train", torch.device("cpu"))
    net = fit.load_network(checkpoints.load_checkpoint(whole[1] / "best.pt"), torch.device("cpu")).eval()
    rows, (major, auxiliary) = models.predict(net, patches, batch_size=7)
    with torch.no_grad():
        single = [models.forward(net, patches.pictures(slice(k, k + 1)))[0].double().softmax(1) for k in range(24)]
    expected = torch.cat(single).reshape(12, 2, 2).mean(1)
    assert rows.tolist() == list(range(12))
    assert auxiliary.shape == (12, 2)
    np.testing.assert_allclose(major, expected, atol=1e-5)


def test_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(InputError, match="--device cuda"):
        pick_device("cuda")


STATE = {
    "epoch": 3,
    "model": {"w": torch.arange(6.0).reshape(2, 3)},
    "history": [{"val_auc": 0.1}],
    "n": torch.tensor(2),
}


def test_round_trip(tmp_path):
    checkpoints.save_checkpoint(tmp_path / "a.pt", STATE)
    found = checkpoints.load_checkpoint(tmp_path / "a.pt")
    assert checkpoints.digest(found) == checkpoints.digest(STATE)
    assert torch.equal(found["model"]["w"], STATE["model"]["w"])


@pytest.mark.parametrize(
    "other",
    [
        {**STATE, "epoch": 4},
        {**STATE, "model": {"w": torch.arange(6.0).reshape(3, 2)}},
        {**STATE, "model": {"w": torch.arange(6).reshape(2, 3)}},
        {**STATE, "history": [{"val_auc": 0.1}, {}]},
        {**STATE, "model": {"v": torch.arange(6.0).reshape(2, 3)}},
    ],
)
def test_digest_tells_states_apart(other):
    assert checkpoints.digest(other) != checkpoints.digest(STATE)


def test_a_changed_byte_is_found(tmp_path):
    path = tmp_path / "a.pt"
    checkpoints.save_checkpoint(path, STATE)
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(6.0).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="sha256"):
        checkpoints.load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_unreadable(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(InputError):
        checkpoints.load_checkpoint(tmp_path / "a.pt")
    with pytest.raises(InputError):
        checkpoints.load_checkpoint(tmp_path / "absent.pt")


def test_previous_checkpoint_stands_in(tmp_path):
    path = tmp_path / "last.pt"
    assert checkpoints.newest_checkpoint(path) is None
    checkpoints.save_checkpoint(path, {"epoch": 1}, keep=True)
    checkpoints.save_checkpoint(path, {"epoch": 2}, keep=True)
    assert checkpoints.newest_checkpoint(path) == {"epoch": 2}
    path.write_bytes(path.read_bytes()[:100])
    assert checkpoints.newest_checkpoint(path) == {"epoch": 1}


def test_an_error_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    checkpoints.save_checkpoint(path, {"epoch": 1})

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save_checkpoint(path, {"epoch": 2})
    assert checkpoints.load_checkpoint(path) == {"epoch": 1}


def test_weights_files(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "plain.pth")
    assert checkpoints.load_weights(tmp_path / "plain.pth")["w"].tolist() == [1, 1]
    checkpoints.save_checkpoint(tmp_path / "best.pt", {"run": {}, "model": {"w": torch.zeros(1)}})
    assert checkpoints.load_weights(tmp_path / "best.pt")["w"].tolist() == [0]
    torch.save({"w": 1}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="no state dict"):
        checkpoints.load_weights(tmp_path / "other.pth")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_pictures_and_learns(tmp_path):
    path = write_store(tmp_path / "s.h5")
    with open_store(path) as store:
        here, there = (load_patches(store, "train", torch.device(name)) for name in ("cpu", "cuda"))
    assert torch.equal(there.rendering.levels(there.hu).cpu(), here.rendering.levels(here.hu))
    history = train(path, tmp_path, settings=Settings("shufflenet_v2_x0_5", epochs=2, device="cuda"))
    assert np.isfinite(history[-1]["train_loss"])


@pytest.mark.parametrize("malignant", [1, 5])
def test_balanced_classes_are_of_equal_weight_in_the_loss(tmp_path, malignant):
    """Whose mean is over patches, of which lesions may have unequally many."""
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "s.h5", label_classes=["benign", "malignant"], rgb=False) as store:
        for k in range(16):
            label, split = ("benign", "malignant")[k % 6 == 0], ("train", "val")[k >= 12]
            hu = discs(rng, malignant if label == "malignant" and split == "train" else 1, 10)
            store.add(patient_id=f"P{k:02d}", split=split, label=label, hu=hu)
        store.add(patient_id="P16", split="val", label="malignant", hu=discs(rng, 1, 10))
    with open_store(tmp_path / "s.h5") as store:
        run = fit.Run("stl-ri", 0, replace(SETTINGS, balanced=True), read_cohort(store), [])
        session = fit._Session(run, {})
    weight = session.class_weights[session.label[session.train.lesion]]
    of_class = [weight[session.label[session.train.lesion] == k].sum().item() for k in (0, 1)]
    assert of_class == pytest.approx([(10 + 2 * malignant) / 2] * 2)
