#!/usr/bin/env bash
# isal 1.9.1: the same buffer compressed at level 2 in another process can be another stream.
#
# Guess: a deterministic algorithm on the same bytes with the same library gives the same bytes.
# Seen: about one buffer in some ten thousand gives another, equally valid stream at levels 1 and 2, depending on where the
#       process's memory lies (address space layout randomisation); at levels 0 and 3 there is one result.
#       Upstream: intel/isa-l#140.
# Behind it here: ctpatch/store/records.py (COMPRESSION).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check isal==1.9.1 numpy==2.2.6 2>/dev/null

cat > "$folder/compress.py" <<'PY'
import hashlib, sys
import numpy as np
from isal import isal_zlib

rng = np.random.default_rng(0)
rows, columns = np.indices((64, 64)) - 32
digests = {level: hashlib.sha256() for level in (0, 2, 3)}
for n in range(7200):  # patches of a CT: lung, a nodule, noise
    nodule = np.hypot(rows, columns) < 3 + n % 20
    patch = (np.where(nodule, 40, -850) + rng.normal(0, 25, (64, 64))).astype("<i2").tobytes()
    for level, digest in digests.items():
        stream = isal_zlib.compress(patch, level)
        assert isal_zlib.decompress(stream) == patch
        digest.update(stream)
print(*(digest.hexdigest()[:16] for digest in digests.values()))
PY

for _ in $(seq 40); do "$folder/venv/bin/python" "$folder/compress.py"; done > "$folder/digests"
different() { cut -d ' ' -f "$1" "$folder/digests" | sort -u | wc -l; }
echo "isal 1.9.1, the same 7,200 buffers in 40 processes: level 0 gives $(different 1), level 2 gives $(different 2), level 3 gives $(different 3) results"
[ "$(different 1)" = 1 ] && [ "$(different 3)" = 1 ] && [ "$(different 2)" -gt 1 ]
