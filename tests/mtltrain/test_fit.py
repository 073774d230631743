"""Training: reproducible to the bit, resumed as if never stopped, and stopped where its loss makes no sense."""

import numpy as np
import pytest
import torch
from toystore import write_store

from ctpatch import CtpatchError, InputError, open_store
from mtltrain import checkpoint, fit, models
from mtltrain.data import load_patches, read_cohort
from mtltrain.tasks import select

SETTINGS = fit.Settings("shufflenet_v2_x0_5", epochs=3, batch_size=10)


@pytest.fixture(scope="module", autouse=True)
def _narrow():
    """Small FC1 and FC2: checkpoints of 1 MB."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "WIDTH", 64)
        yield


class Killed(BaseException):
    """Ends a run as a kill does: nothing catches it."""


def train(path, folder, arch="mtl-ri", settings=SETTINGS, watch=lambda batches, title: batches, seed=0):
    with open_store(path) as store, fit.guarded(settings):
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
    torch.set_num_threads(1)
    return write_store(folder / "s.h5"), folder, train(folder / "s.h5", folder)


def same(one, two):
    return all(
        checkpoint.digest(checkpoint.load(one / name)) == checkpoint.digest(checkpoint.load(two / name))
        for name in ("best.pt", "last.pt")
    )


def test_other_seed_other_weights(whole, tmp_path):
    path, folder, _ = whole
    train(path, tmp_path, seed=1)
    assert not same(tmp_path, folder)


def test_checkpoint_of_another_store_or_setting(whole, tmp_path):
    path = whole[0]
    with pytest.raises(Killed):
        train(path, tmp_path, watch=stop_at(2, 0))
    with pytest.raises(InputError, match="made with batch_size = 10, this call has 12"):
        train(path, tmp_path, settings=fit.Settings("shufflenet_v2_x0_5", epochs=3, batch_size=12))
    other = write_store(tmp_path / "other.h5", seed=1)
    with pytest.raises(InputError, match="made with store = "):
        train(other, tmp_path)


def test_gradient_that_is_not_finite(whole, tmp_path, monkeypatch):
    """The square root of zero: a loss of 0 with an infinite slope."""
    loss = fit.multitask_loss
    monkeypatch.setattr(fit, "multitask_loss", lambda *args: loss(*args) + (loss(*args) * 0).sqrt())
    with pytest.raises(CtpatchError, match="not finite in epoch 1"):
        train(whole[0], tmp_path)


def test_other_errors_are_not_called_out_of_memory(whole, tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("a bug")

    monkeypatch.setattr(fit, "forward", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        train(whole[0], tmp_path)


def test_early_stop_keeps_the_first_best_epoch(whole, tmp_path, monkeypatch):
    aucs = iter([0.5, 0.7, 0.7, 0.6, 0.9])
    monkeypatch.setattr(fit._Session, "validate", lambda self: next(aucs))
    history = train(
        whole[0], tmp_path, settings=fit.Settings("shufflenet_v2_x0_5", epochs=9, patience=2, batch_size=24)
    )
    assert [entry["val_auc"] for entry in history] == [0.5, 0.7, 0.7, 0.6]
    assert len(checkpoint.load(tmp_path / "best.pt")["history"]) == 2


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

    train(whole[0], tmp_path, settings=fit.Settings("shufflenet_v2_x0_5", epochs=1, batch_size=10), watch=watch)
    assert seen == [[10, 10, 4]]


def test_a_lesions_patches_are_averaged(whole):
    with open_store(whole[0]) as store:
        patches = load_patches(store, "train", torch.device("cpu"))
    net = fit.load_network(checkpoint.load(whole[1] / "best.pt"), torch.device("cpu")).eval()
    rows, (major, auxiliary) = fit.predict(net, patches, batch_size=7)
    with torch.no_grad():
        single = [fit.forward(net, hu)[0].double().softmax(1) for hu in patches.hu.split(1)]
    expected = torch.cat(single).reshape(12, 2, 2).mean(1)
    assert rows.tolist() == list(range(12))
    assert auxiliary.shape == (12, 2)
    np.testing.assert_allclose(major, expected, atol=1e-5)


def test_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert fit.pick_device("auto").type == "cpu"
    with pytest.raises(InputError, match="--device cuda"):
        fit.pick_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_pictures_and_learns(tmp_path):
    from mtltrain.data import levels

    path = write_store(tmp_path / "s.h5")
    with open_store(path) as store:
        hu = load_patches(store, "train", torch.device("cuda")).hu
    assert torch.equal(levels(hu).cpu(), levels(hu.cpu()))
    history = train(path, tmp_path, settings=fit.Settings("shufflenet_v2_x0_5", epochs=2, device="cuda"))
    assert np.isfinite(history[-1]["train_loss"])
