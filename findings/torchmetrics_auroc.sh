#!/usr/bin/env bash
# torchmetrics 1.9.0: the AUC of a network's logits depends on its batches, and of large logits it is 0.5 for a perfect order.
#
# Guess: AUROC takes probabilities or logits, as its documentation says; sigmoid is monotone, so the AUC is of the logits'
#        order, however they came in batches.
# Seen: each batch is looked at alone: it goes through a sigmoid where one of its values is outside 0 to 1, else it stays.
#       Three positives above all negatives: AUC 1.0 in one batch, less where a batch happens to lie within 0 to 1,
#       for there 0.3 is 0.3 and in the other 0.1 becomes 0.52. And sigmoid's float32 is 1 above 17: positives of 40 and 30
#       and negatives of 20 to 18, as an overconfident network has them, are all tied. Neither says a word.
#       Upstream, open: Lightning-AI/torchmetrics#2195 and #2819.
# Behind it here: ranking in mtltrain/metrics.py: no order is lost next to 1; AUC is of all lesions at once.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torchmetrics==1.9.0 torch==2.14.1 numpy==2.4.6 2>/dev/null

cat > "$folder/auroc.py" <<'PY'
import warnings

warnings.simplefilter("error")
import torch
import torchmetrics
from torchmetrics.classification import BinaryAUROC


def auc(logits, truth, batches):
    """AUC of the logits as they come in so many batches, and of their ranks."""
    metric, by_rank = BinaryAUROC(), BinaryAUROC()
    values, labels = torch.tensor(logits), torch.tensor(truth)
    for scores, known in zip(values.chunk(batches), labels.chunk(batches), strict=True):
        metric.update(scores, known)
    by_rank.update(values.argsort().argsort() / len(logits), labels)
    return float(metric.compute()), float(by_rank.compute())


print("torchmetrics", torchmetrics.__version__)
some, truth = [0.3, 0.4, 0.2, 0.1, 3.0, -2.0], [1, 1, 0, 0, 1, 0]
for batches, right in ((1, True), (2, False)):
    found, order = auc(some, truth, batches)
    print(f"logits {some}, {batches} batch(es): AUC {found:.3f}, of their order {order:.3f}")
    assert order == 1 and (found == 1) == right
large, truth = [40.0, 30.0, 20.0, 19.0, 18.0], [1, 1, 0, 0, 0]
found, order = auc(large, truth, 1)
print(f"logits {large}: AUC {found:.3f}, of their order {order:.3f}")
assert (found, order) == (0.5, 1)
PY
"$folder/venv/bin/python" "$folder/auroc.py"
