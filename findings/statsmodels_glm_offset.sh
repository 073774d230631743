#!/usr/bin/env bash
# statsmodels 0.15.0: the calibration intercept of a confident model comes out as 10^14, with a tight interval, "converged".
#
# Guess: calibration in the large, a logistic regression on a constant with the model's log odds as offset, has one unknown
#        and a unique solution; GLM finds it, or warns that it has not converged.
# Seen: of 40 lesions whose log odds are spread by 30 or 60, as short trainings with high learning rates give them, the
#       root is at 8, 15 and -16. `GLM(..., Binomial(), offset=...).fit()` returns 10^14 to 10^15 after four or five
#       iterations, an interval that is narrower than one part in a million around it, `converged` True, and no warning:
#       its steps run away, and far out the deviance no longer changes. Upstream, open: statsmodels/statsmodels#1604.
# Behind it here: _Logistic in mtltrain/clinical.py, which takes a trust region and refuses what is hardly determined.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    statsmodels==0.15.0 numpy==2.2.6 scipy==1.15.3 pandas==2.3.3 2>/dev/null

cat > "$folder/intercept.py" <<'PY'
import warnings
import numpy as np
import statsmodels
import statsmodels.api as sm
from scipy.optimize import brentq
from scipy.special import expit

warnings.simplefilter("error")
for spread, seed in ((30, 43), (60, 1), (60, 25)):
    rng = np.random.default_rng(seed)
    truth = rng.random(40) < 0.5
    odds = np.clip(rng.normal(size=40) * spread + np.where(truth, spread, -spread), -36, 36)
    found = sm.GLM(truth.astype(float), np.ones(40), sm.families.Binomial(), offset=odds).fit()
    root = brentq(lambda a: (truth - expit(a + odds)).sum(), -80, 80)
    (low, high), value = found.conf_int()[0], found.params[0]
    print(f"statsmodels {statsmodels.__version__}: {value:.4g} ({low:.4g} to {high:.4g}), ", end="")
    print(f"converged {found.converged} after {found.fit_history['iteration']} iterations; the root is {root:.3f}")
    assert abs(value) > 1e13 and found.converged and abs(high - low) < 1e-6 * abs(value) and abs(root) < 20
PY
"$folder/venv/bin/python" "$folder/intercept.py"
