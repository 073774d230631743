#!/usr/bin/env bash
# torchvision 0.29.1: importing it loads torch's whole compiler, which torch itself leaves alone until it is asked.
#
# Guess: `import torchvision` adds its own models and operators to torch, tenths of a second.
# Seen: it takes about as long again as `import torch`, or twice that: one line of torchvision.ops.roi_align, which
#       torchvision.models imports with its first networks, imports torch._dynamo, and with it parts of torch._inductor
#       and sympy: of some thousand modules more every seventh is torchvision's. A few lines below it a wrapper compiles
#       that operator lazily, so as not to import dynamo (pytorch/vision#8436). Each process pays, such as a command, a
#       DataLoader's spawned worker, a test.
# Behind it here: mtltrain's command has read its arguments, and compares runs, without torchvision.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 2>/dev/null

cat > "$folder/modules.py" <<'PY'
import sys
import time

start = time.perf_counter()
import torch

alone, took = set(sys.modules), time.perf_counter() - start
print(f"torch {torch.__version__.split('+')[0]}: {len(alone)} modules, {took:.1f} s")
assert "torch._dynamo" not in alone and "sympy" not in alone
start = time.perf_counter()
import torchvision

more, took = set(sys.modules) - alone, time.perf_counter() - start
print(f"torchvision {torchvision.__version__.split('+')[0]}: {len(more)} modules more, {took:.1f} s more")
for package in ("torch._dynamo", "torch._inductor", "sympy", "torchvision"):
    print(f"of {package}:", sum(name == package or name.startswith(f"{package}.") for name in more))
assert "torch._dynamo" in more and "sympy" in more
assert sum(name.split(".")[0] == "torchvision" for name in more) < len(more) / 4
PY
"$folder/venv/bin/python" "$folder/modules.py"
