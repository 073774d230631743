#!/usr/bin/env bash
# scikit-learn 1.9.1: a grade that nobody gave is no part of weighted kappa's scale: one more lesion in agreement lowers it.
#
# Guess: with weights="quadratic" a disagreement counts by the square of the difference of the two grades: malignancy 2
#        against 5 counts nine times as much as 2 against 1. Agreement on one more lesion raises kappa.
# Seen: it counts by their places among the grades that were given. Where nobody gave a 3 or a 4, 5 is next to 2: quadratic
#       kappa is 0.75, and 0.61 with labels=[1, 2, 3, 4, 5]. One lesion more, a 3 to both readers, makes it 0.66, one more, a 4
#       to both, 0.62; linear weights 0.64, 0.59, 0.58. So two groups of lesions, or two draws of a bootstrap, are measured
#       by different scales. No word of it. Grades 1, 2 and 9 have the kappa of 1, 2 and 5.
# Behind it here: mtltrain/confusion.py shows counts of known against predicted levels, and no weighted kappa of them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6 2>/dev/null

cat > "$folder/kappa.py" <<'PY'
import numpy as np
import sklearn
from sklearn.metrics import cohen_kappa_score

GRADES = np.arange(1, 6)
print("scikit-learn", sklearn.__version__)
counts = {(1, 1): 12, (2, 2): 12, (5, 5): 12, (1, 2): 2, (2, 1): 2, (2, 5): 6, (5, 2): 6}
one, two = (np.repeat([pair[k] for pair in counts], list(counts.values())) for k in (0, 1))


def by_definition(a, b, power):
    table = np.array([[np.sum((a == i) & (b == j)) for j in GRADES] for i in GRADES])
    weight = np.abs(GRADES[:, None] - GRADES) ** power
    return 1 - (weight * table).sum() / (weight * np.outer(table.sum(axis=1), table.sum(axis=0))).sum() * table.sum()


for weights, power in (("linear", 1), ("quadratic", 2)):
    found = []
    for both in ([], [3], [3, 4]):
        a, b = np.append(one, both).astype(int), np.append(two, both).astype(int)
        kappa, whole = cohen_kappa_score(a, b, weights=weights), cohen_kappa_score(a, b, weights=weights, labels=GRADES)
        print(f"{weights}, {len(a)} lesions, both say {both or 'neither 3 nor 4'}: {kappa:.3f},",
              f"with all grades as labels {whole:.3f}")  # fmt: skip
        assert np.isclose(whole, by_definition(a, b, power))
        found.append(kappa - whole)
        if both == []:
            first = kappa
            assert kappa - whole > 0.07
            assert np.isclose(kappa, cohen_kappa_score(np.where(a == 5, 9, a), np.where(b == 5, 9, b), weights=weights))
        assert (kappa < first - 0.04) == bool(both)
    assert np.isclose(found[-1], 0)
PY
"$folder/venv/bin/python" "$folder/kappa.py"
