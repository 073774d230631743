#!/usr/bin/env bash
# MLstatkit 0.1.91: two classifiers with the same scores differ with p = 0.
#
# Guess: of equal scores `Delong_test` says p = 1, or that there is nothing to test.
# Seen: z = 0 and p = 0.0, for it goes over to a bootstrap whose test counts nothing as beyond a difference of 0. Of
#       scores that differ p is DeLong's to the last digit, with z of the other sign than AUC A minus AUC B.
# Behind it here: mtltrain/metrics.py has DeLong's test of its own, checked against its definition.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check MLstatkit==0.1.91 numpy==2.2.6 2>/dev/null

cat > "$folder/delong.py" <<'PY'
from importlib.metadata import version
import numpy as np
from MLstatkit import Delong_test

rng = np.random.default_rng(1)
labels = rng.integers(0, 2, 60)
better, worse = (labels + rng.normal(0, noise, 60) for noise in (1.2, 1.6))
for name, other in (("the same scores", better), ("other scores", worse)):
    z, p, _, _, auc, against, about = Delong_test(labels, better, other)
    print(f"MLstatkit {version('MLstatkit')}, {name}: AUC {auc:.3f} and {against:.3f}, z {z:.3f}, p {p:.4f}, {about['method']}")
    assert (p, about["method"]) == (0, "bootstrap") if other is better else z < 0 < auc - against
PY
"$folder/venv/bin/python" "$folder/delong.py"
