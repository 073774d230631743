#!/usr/bin/env bash
# safetensors 0.8.0: what save_file writes only its owner can read, whatever the umask.
#
# Guess: a file is written as open() writes it: with umask 022 everyone may read it, and an existing file keeps its mode.
# Seen: mode 600, also over a file of mode 664; 0.7.0 heeds the umask. Weights put into a shared folder are then
#       unreadable for everyone else there. safetensors.save gives bytes, which open() writes as usual.
#       Upstream: safetensors/safetensors#782.
# Behind it here: main in docs/examples/efficientnet_lite0.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

cat > "$folder/write.py" <<'PY'
import os, pathlib, sys
import numpy as np
import safetensors
from safetensors.numpy import save, save_file

os.umask(0o022)
folder, tensors = pathlib.Path(sys.argv[1]), {"weight": np.ones(3, np.float32)}
new, old, own = (folder / name for name in ("new", "old", "own"))
old.write_bytes(b"")
old.chmod(0o664)
for path in (new, old):
    save_file(tensors, path)
own.write_bytes(save(tensors))
modes = [oct(path.stat().st_mode & 0o777) for path in (new, old, own)]
print("safetensors", safetensors.__version__, "a new file:", modes[0], " over one of 0o664:", modes[1], " by write_bytes:", modes[2])
expected = {"0.8.0": ["0o600", "0o600", "0o644"], "0.7.0": ["0o644", "0o664", "0o644"]}
assert modes == expected[safetensors.__version__]
for path in (new, old, own):
    path.unlink()
PY
for version in 0.7.0 0.8.0; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==$version numpy==2.2.6 2>/dev/null
    "$folder/venv/bin/python" "$folder/write.py" "$folder"
done
