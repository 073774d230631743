#!/usr/bin/env bash
# timm 1.0.31: weights that lack a third of the network are loaded without a word, if the number of classes differs.
#
# Guess: create_model(pretrained=True) of a file that lacks tensors fails, as torch's load_state_dict does and as timm
#        does itself with the file's own number of classes.
# Seen: with another num_classes (every transfer learning), or 0, it loads with strict=False: what the file lacks stays
#       random. The missing names are logged at level INFO, which nobody sees by default. A misspelt prefix of all names
#       ("net.conv1.weight") gives a wholly random network, with one warning about unexpected keys in the log.
# Behind it here: copy_into in mtltrain/weights.py, which names what is missing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    timm==1.0.31 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 2>/dev/null

cat > "$folder/load.py" <<'PY'
import contextlib, io, logging, sys, warnings
import timm, torch

warnings.simplefilter("error")
whole = timm.create_model("test_resnet").state_dict()
part = {name: tensor for name, tensor in whole.items() if not name.startswith(("layer3", "layer4"))}
file = f"{sys.argv[1]}/part.pth"
torch.save(part, file)

def load(classes):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        net = timm.create_model("test_resnet", pretrained=True, pretrained_cfg_overlay={"file": file}, num_classes=classes)
    same = [name for name, tensor in net.state_dict().items() if name in whole and torch.equal(tensor, whole[name])]
    return len(same), said.getvalue()

try:
    load(1000)
    strict = False
except RuntimeError as error:
    strict = "Missing key(s)" in str(error)
loaded, said = load(2)
print(f"timm {timm.__version__}: the file has {len(part)} of {len(whole)} tensors; refused with its own 1000 classes: {strict}; "
      f"with 2 classes {loaded} tensors are the file's, said: {said!r}")
assert strict and loaded < len(whole) - 2 and not said
PY
"$folder/venv/bin/python" "$folder/load.py" "$folder"
