#!/usr/bin/env bash
# confidenceinterval 1.0.5: recall_score and precision_score of two classes are both the accuracy.
#
# Guess: with "the standard scikit-learn naming convention and interface" come its defaults: recall is the sensitivity,
#        precision the positive predictive value.
# Seen: `average` is "micro" unless it is given, and micro averages over both classes are all of them the accuracy: with 9 of
#       12 malignant and 80 of 88 benign lesions told, recall and precision are 0.89, and so is f1_score; they are 0.75,
#       0.53 and 0.62. With average="binary" recall and precision raise an AssertionError, for the default method of their
#       interval does not know it. tpr_score and ppv_score are right. Upstream: jacobgil/confidenceinterval#6 and #8.
# Behind it here: operating_point in mtltrain/clinical.py: each share is of the lesions that it is about.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check confidenceinterval==1.0.5 scikit-learn==1.9.1 \
    statsmodels==0.15.0 scipy==1.17.1 numpy==2.4.6 pandas==2.3.3 2>/dev/null

cat > "$folder/recall.py" <<'PY'
from importlib.metadata import version
import confidenceinterval as ci
import numpy as np
from sklearn import metrics

known = np.repeat([1, 0], [12, 88])
said = np.repeat([1, 0, 1, 0], [9, 3, 8, 80])
accuracy = metrics.accuracy_score(known, said)
print("confidenceinterval", version("confidenceinterval"), "accuracy", accuracy)
for name in ("recall_score", "precision_score", "f1_score"):
    (value, (low, high)), right = getattr(ci, name)(known, said), getattr(metrics, name)(known, said)
    print(f"{name} {value:.2f} ({low:.2f} to {high:.2f}); scikit-learn's {right:.2f}")
    assert np.isclose(value, accuracy) and not low < right < high
for name, right in (("tpr_score", metrics.recall_score), ("ppv_score", metrics.precision_score)):
    assert np.isclose(getattr(ci, name)(known, said)[0], right(known, said))
for name in ("recall_score", "precision_score"):
    try:
        getattr(ci, name)(known, said, average="binary")
        raise SystemExit(f"{name} knows average=binary")
    except AssertionError as error:
        print(f'{name} with average="binary": {str(error)[:40]}…')
PY
"$folder/venv/bin/python" "$folder/recall.py"
