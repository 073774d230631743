"""Steps as one CUDA graph: each batch is stepped once, in order; on a GPU, as kernel by kernel."""

from contextlib import contextmanager

import pytest
import torch
from toystore import write_store

from ctpatch import CtpatchError, InputError, open_store
from mtltrain import Settings, checkpoints, fit
from mtltrain.cohort import read_cohort
from mtltrain.device import guarded
from mtltrain.folder import fit_folder
from mtltrain.graph import WARM_UP, GraphedStep
from mtltrain.tasks import select

pytestmark = pytest.mark.usefixtures("narrow")

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Stream:
    def wait_stream(self, other):
        pass


class Recorder:
    """Stands for a GPU: while a graph is captured nothing is computed, and a replay computes what was captured."""

    def __init__(self, monkeypatch):
        self.captured, self.capturing, self.made, self.replays = None, False, [], 0
        empty = torch.empty
        monkeypatch.setattr(torch, "empty", lambda *size, device, **words: empty(*size, **words))
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "current_stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: self._nothing())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch.cuda, "graph", self._capture)

    @contextmanager
    def _nothing(self):
        yield

    @contextmanager
    def _capture(self, graph):
        assert graph is self
        assert self.captured is None
        self.capturing = True
        yield
        self.capturing = False

    def step(self, batch):
        if self.capturing:
            self.captured = batch
        else:
            self.made.append(batch.tolist())

    def replay(self):
        self.replays += 1
        self.made.append(self.captured.tolist())


@pytest.mark.parametrize("patches", [3, 10, 11, 40, 47])
def test_every_batch_is_stepped_once_and_in_order(monkeypatch, patches):
    gpu = Recorder(monkeypatch)
    step, order = GraphedStep(gpu.step, 5), torch.arange(patches).flip(0)
    batches = [*order.split(5), *order.flip(0).split(5)]  # two epochs
    for batch in batches:
        step(batch)
    assert gpu.made == [batch.tolist() for batch in batches]
    full = sum(len(batch) == 5 for batch in batches)
    assert gpu.replays == max(0, full - WARM_UP)


def test_no_gpu_no_graph(store, tmp_path):
    with pytest.raises(InputError, match="--cuda-graph, but the device is cpu"):
        fit_folder(store, tmp_path / "out", ["stl-ri"], [0], Settings("shufflenet_v2_x0_5"), graph=True)
    assert not (tmp_path / "out").exists()


def trained(path, folder, backbone, graph):
    settings = Settings(backbone, epochs=3, batch_size=5, device="cuda", deterministic=True)
    with open_store(path) as store, guarded(settings):
        cohort = read_cohort(store, device="cuda")
        run = fit.Run("mtl-ri", 0, settings, cohort, select(cohort)[1])
        fit.train(run, folder, {}, lambda line: None, lambda batches, title: batches, graph=graph)
    state = checkpoints.load_checkpoint(folder / "last.pt")
    return checkpoints.digest([state["model"], state["history"], state["optimizer"]["state"]])


@needs_gpu
@pytest.mark.parametrize("backbone", ["alexnet", "resnet18"])
def test_a_graph_gives_the_bits_of_single_kernels(tmp_path, backbone):
    """With dropout, whose seed changes from epoch to epoch, and a last batch of another size."""
    path = write_store(tmp_path / "s.h5", patches=4)
    plain, graph = (trained(path, tmp_path / str(k), backbone, bool(k)) for k in (0, 1))
    assert plain == graph


@needs_gpu
def test_a_bad_batch_is_named_by_a_graph_too(tmp_path, monkeypatch):
    path = write_store(tmp_path / "s.h5", patches=4)
    loss = fit._Session.loss
    monkeypatch.setattr(fit._Session, "loss", lambda self, batch: loss(self, batch) / (batch != 7).all())
    said = []
    for graph in (False, True):
        with pytest.raises(CtpatchError, match="P0001/1") as error:
            trained(path, tmp_path / str(graph), "alexnet", graph)
        said.append(str(error.value))
    assert said[0] == said[1]
