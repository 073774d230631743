#!/usr/bin/env bash
# timm 1.0.31: weights that lack half of the network are loaded without a word where the number of classes differs.
#
# Guess: create_model(pretrained=True) of a file that lacks tensors fails, as torch's load_state_dict does, and timm
#        itself with the file's own number of classes.
# Seen: with another num_classes (as in all transfer learning), or 0, it loads with strict=False: what the file lacks
#       stays random. The missing names are logged at level INFO, which by default nobody sees. Where all names have a
#       foreign prefix the whole network stays random, with one line of warning about unexpected keys in the log.
# Behind it here: copy_into in mtltrain/weights.py, which refuses and names what is missing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    timm==1.0.31 torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 2>/dev/null

cat > "$folder/load.py" <<'PY'
import contextlib, io, sys, warnings
import timm, torch

warnings.simplefilter("error")
whole = timm.create_model("test_resnet").state_dict()
kernels = [name for name, tensor in whole.items() if tensor.ndim == 4]  # biases and such are constants at first
part = {name: tensor for name, tensor in whole.items() if not name.startswith(("layer3", "layer4"))}
file = f"{sys.argv[1]}/weights.pth"

def random_kernels(weights, classes):
    """Of a network made from these weights: how many kernels are not theirs, and what was said."""
    torch.save(weights, file)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        net = timm.create_model(
            "test_resnet", pretrained=True, pretrained_cfg_overlay={"file": file}, num_classes=classes
        ).state_dict()
    return sum(not torch.equal(net[name], whole[name]) for name in kernels), said.getvalue().strip()

try:
    random_kernels(part, 1000)
    refused = False
except RuntimeError as error:
    refused = "Missing key(s)" in str(error)
some, said = random_kernels(part, 2)
every, warned = random_kernels({f"net.{name}": tensor for name, tensor in whole.items()}, 2)
print("timm", timm.__version__, "half a file: with its own 1000 classes refused:", refused, "; with 2 classes", some, "of",
      len(kernels), "kernels are random, said:", repr(said))
print("a foreign prefix:", every, "kernels are random, said:", warned[:60], "...")
assert refused and 0 < some < len(kernels) and said == ""
assert every == len(kernels) and warned.startswith("Unexpected keys") and len(warned.splitlines()) == 1
assert random_kernels(whole, 2) == (0, "")
PY
"$folder/venv/bin/python" "$folder/load.py" "$folder"
