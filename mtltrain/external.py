"""External validation: the networks of a run folder on another store's labelled lesions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ctpatch.store import InputError

from .cohort import digests
from .compare import evaluate, load_metrics
from .files import read_csv, read_json, run_files


def validate(folder: Path, predictions: pd.DataFrame) -> dict[str, Any]:
    """Evaluate predictions of lesions that the networks have never seen, as `mtltrain fit` evaluates its test lesions.

    Every labelled lesion counts, whatever its split. The threshold of the operating point stays the one chosen on the
    run folder's validation lesions (TRIPOD+AI: what is validated is the model as it was).

    Parameters
    ----------
    folder : Path
        The run folder.
    predictions : DataFrame
        What `mtltrain.folder.predict_folder` made with it.

    Returns
    -------
    dict
        As of `mtltrain.compare.evaluate`, without Table 1, flow and auxiliary tasks.

    Raises
    ------
    InputError
        If no lesion has a label, or a patient was trained or validated on, or the run folder does not say on whom.
    """
    own, config = load_metrics(folder), read_json(folder / "config.json")
    if "training_patients" not in config:
        found = "made by an earlier mtltrain, it does not say on which patients"
        raise InputError(found, "call the same mtltrain fit again: it adds them, and trains nothing anew", folder)
    if not (predictions["label"] != "").any():
        raise InputError("no lesion that was predicted has a label", "leave --metrics out", folder)
    before = pd.concat([read_csv(file) for file in run_files(folder, "predictions.csv")])
    chosen = before[before["split"] == "val"]
    seen = {*config["training_patients"], *digests(chosen["patient_id"])}
    if known := sorted(who for who in set(predictions["patient_id"]) if {*digests([who])} & seen):
        found = f"{len(known)} patients of the store took part in the training, as {known[0]}"
        raise InputError(found, "name a store of others, or the --split test of the same", folder)
    everything = pd.concat([chosen, predictions.assign(split="test")], ignore_index=True)
    return evaluate(everything, own["classes"], own["positive"])
