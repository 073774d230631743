"""`evaluate` against numbers worked out by hand and with scikit-learn; the tables as they are printed."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score
from toystore import predictions

from ctpatch.errors import InputError
from mtltrain import cases
from mtltrain import tables as run_tables
from mtltrain.compare import SCHEMA, evaluate, load_metrics
from mtltrain.confusion import characteristics
from mtltrain.files import read_csv
from mtltrain.metrics import auc, compare_auc, mcnemar
from mtltrain.scores import numbers, votes
from mtltrain.tables import format_comparison, format_tables, run_name, tables, verdicts

SELECTION = [
    {"name": "lobulation", "r": 0.29, "p": 0.0004, "n": 140, "kept": True, "reason": ""},
    {"name": "cusp", "r": np.nan, "p": None, "n": np.int64(2), "kept": False, "reason": "constant"},
]


def strict(metrics):
    """Through JSON and back; refuses NaN and numpy's scalars."""
    return json.loads(json.dumps(metrics, allow_nan=False))


def test_table_2_of_one_seed_is_sklearns():
    table = predictions(runs=["mtl-ri"])
    found = strict(evaluate(table, ["T3", "T4"]))["runs"]["mtl-ri"]
    said = np.where(table["p_T4"] > table["p_T3"], "T4", "T3")
    expected = {
        "auc": roc_auc_score(table["label"] == "T4", table["p_T4"]),
        "accuracy": accuracy_score(table["label"], said),
        "sensitivity": recall_score(table["label"], said, pos_label="T4"),
        "specificity": recall_score(table["label"], said, pos_label="T3"),
    }
    assert {name: item["value"] for name, item in found["metrics"].items()} == pytest.approx(expected)
    assert all(item["low"] < item["value"] < item["high"] for item in found["metrics"].values())
    assert found["over_seeds"]["auc"] == {
        "values": [pytest.approx(expected["auc"])],
        "mean": pytest.approx(expected["auc"]),
        "sd": None,
    }


def test_positive_class_turns_sensitivity_and_specificity_round():
    table = predictions(runs=["mtl-ri"])
    last, first = (evaluate(table, ["T3", "T4"], positive) for positive in (None, "T3"))
    assert (last["positive"], first["positive"]) == ("T4", "T3")
    ours, theirs = (each["runs"]["mtl-ri"]["metrics"] for each in (last, first))
    assert ours["sensitivity"] == theirs["specificity"]
    assert ours["specificity"] == theirs["sensitivity"]
    assert ours["auc"]["value"] == pytest.approx(theirs["auc"]["value"])
    assert evaluate(table, ["T4", "T3"])["positive"] == "T4"  # the last in sorted order, not in the network's


def test_several_seeds_are_averaged_first_and_spread_apart():
    table = predictions(seeds=(0, 1, 2))
    found = evaluate(table, ["T3", "T4"])
    entry = found["runs"]["mtl-ri"]
    each = [
        roc_auc_score(part["label"] == "T4", part["p_T4"])
        for _, part in table[table["run"] == "mtl-ri"].groupby("seed")
    ]
    assert entry["seeds"] == [0, 1, 2]
    assert entry["over_seeds"]["auc"]["values"] == pytest.approx(each)
    assert entry["over_seeds"]["auc"]["mean"] == pytest.approx(np.mean(each))
    assert entry["over_seeds"]["auc"]["sd"] == pytest.approx(np.std(each, ddof=1))
    mean = table.groupby(["run", "patient_id"])["p_T4"].mean().unstack(0)
    truth = table.drop_duplicates("patient_id").set_index("patient_id")["label"].eq("T4").loc[mean.index]
    assert entry["metrics"]["auc"]["value"] == auc(mean["mtl-ri"], truth).value
    test = found["tests"][0]
    difference, p = compare_auc(mean["mtl-ri"], mean["stl-ri"], truth)
    assert (test["auc_difference"]["value"], test["p_auc"]) == (difference.value, p)
    right = [(mean[run] > 0.5) == truth for run in ("mtl-ri", "stl-ri")]
    assert test["p_mcnemar"] == pytest.approx(mcnemar(*right))
    assert (test["first_only"], test["second_only"]) == ((right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum())


def test_seeds_are_never_stacked_as_if_they_were_patients():
    one = predictions()
    same = pd.concat([one.assign(seed=seed) for seed in range(5)], ignore_index=True)
    alone, stacked = evaluate(one, ["T3", "T4"]), evaluate(same, ["T3", "T4"])
    assert stacked["test"]["lesions"] == 40
    assert stacked["tests"][0]["p_auc"] == pytest.approx(alone["tests"][0]["p_auc"])
    assert stacked["tests"][0]["p_mcnemar"] == alone["tests"][0]["p_mcnemar"]


def test_only_mtl_against_stl_of_the_same_start_is_tested():
    found = evaluate(predictions(runs=["stl-ri", "mtl-tl", "mtl-ri", "stl-tl"]), ["T3", "T4"])
    assert [(test["first"], test["second"]) for test in found["tests"]] == [("mtl-tl", "stl-tl"), ("mtl-ri", "stl-ri")]
    assert evaluate(predictions(runs=["mtl-tl", "stl-ri"]), ["T3", "T4"])["tests"] == []


def test_identical_models_have_p_1():
    table = predictions(runs=["mtl-tl"])
    found = evaluate(pd.concat([table, table.assign(run="stl-tl")]), ["T3", "T4"])
    assert (found["tests"][0]["p_auc"], found["tests"][0]["p_mcnemar"]) == (1.0, 1.0)
    assert "0.000 (CI undefined)" in format_tables(found)
    assert "MTL+TL against STL+TL: both models rank the lesions alike" in format_tables(found)


def test_what_was_found_is_a_sentence_each():
    found = evaluate(predictions(runs=["stl-ri", "mtl-tl", "mtl-ri", "stl-tl"]), ["T3", "T4"])
    told = verdicts(found)
    assert [line.partition(":")[0] for line in told] == ["MTL+TL against STL+TL", "MTL+RI against STL+RI"]
    gap = {"value": -0.029, "low": -0.173, "high": 0.116, "reason": ""}
    pair = {"first": "mtl-ri", "second": "stl-ri", "auc_difference": gap}
    numbers = "MTL+RI against STL+RI: AUC -0.029 (95 % CI -0.173 to +0.116), p"
    assert verdicts({"tests": [pair | {"p_auc": 0.7}]}) == [f"{numbers} = 0.700: no difference shown."]
    assert verdicts({"tests": [pair | {"p_auc": 1e-5}]}) == [f"{numbers} < 0.001: a difference in these lesions."]
    few = {"tests": [pair | {"p_auc": 1e-5}], "test": {"counts": {"T3": 9, "T4": 10}}}
    assert verdicts(few)[0].endswith("Few test lesions (9 of class T3): the interval is too narrow and p too small.")
    assert "undefined" in verdicts(evaluate(predictions(lesions=12).assign(label="T3"), ["T3", "T4"]))[0]


@pytest.mark.parametrize(("lesions", "few"), [(150, True), (250, False)])
def test_calibration_of_few_lesions_is_marked(lesions, few):
    (title,) = [title for title in tables(evaluate(predictions(lesions=lesions), ["T3", "T4"])) if "Calib" in title]
    assert title.endswith("hardly to be judged with fewer than 100 of a class") is few


def test_order_of_rows_and_validation_rows_do_not_matter():
    table = predictions(per_patient=2)
    more = pd.concat([table, predictions(lesions=7).assign(split="val")]).sample(frac=1, random_state=0)
    assert strict(evaluate(more, ["T3", "T4"]))["tests"] == strict(evaluate(table, ["T3", "T4"]))["tests"]


def test_blank_labels_are_not_scored():
    table = predictions()
    blank = table["patient_id"].isin(["001", "002"])
    found = evaluate(table.assign(label=table["label"].mask(blank, "")), ["T3", "T4"])
    assert found["test"] == evaluate(table[~blank], ["T3", "T4"])["test"] | {"unlabelled": 2}
    assert found["runs"] == evaluate(table[~blank], ["T3", "T4"])["runs"]
    assert found["runs"] == evaluate(table.assign(label=table["label"].mask(blank)), ["T3", "T4"])["runs"]


@pytest.mark.parametrize("left", [0, 12])
def test_one_class_or_no_test_lesion_is_undefined(left):
    table = predictions(lesions=12).assign(label="T3")
    found = strict(evaluate(table if left else table.assign(label=""), ["T3", "T4"]))
    metrics = found["runs"]["mtl-ri"]["metrics"]
    assert found["test"]["counts"] == {"T3": left, "T4": 0}
    assert metrics["auc"] == {"value": None, "low": None, "high": None, "reason": "a class has no test lesion"}
    assert metrics["sensitivity"]["value"] is None
    assert found["tests"][0]["p_auc"] is None
    assert (found["tests"][0]["p_mcnemar"] is None) == (left == 0)
    assert "undefined" in format_tables(found)


def test_several_lesions_of_a_patient_are_clustered_and_said_so():
    table = predictions(per_patient=3, lesions=60)
    found = evaluate(table, ["T3", "T4"])
    rows = table[table["run"] == "mtl-ri"]
    expected = auc(rows["p_T4"], rows["label"] == "T4", rows["patient_id"])
    assert found["runs"]["mtl-ri"]["metrics"]["auc"] == {
        "value": pytest.approx(expected.value),
        "low": pytest.approx(expected.low),
        "high": pytest.approx(expected.high),
        "reason": "",
    }
    assert (found["test"]["patients"], found["test"]["lesions"]) == (20, 60)
    assert "Obuchowski" in found["methods"]["auc"]
    assert found["methods"]["proportions"].startswith("patient bootstrap")
    assert evaluate(predictions(), ["T3", "T4"])["methods"]["proportions"] == "Wilson"


def test_more_than_two_classes():
    table = predictions(runs=["mtl-ri"], classes=("a", "b", "c"), lesions=90)
    found = strict(evaluate(table, ["a", "b", "c"]))
    metrics = found["runs"]["mtl-ri"]["metrics"]
    scores = table[["p_a", "p_b", "p_c"]].to_numpy()
    said = np.array(["a", "b", "c"])[scores.argmax(axis=1)]
    assert found["positive"] is None
    assert metrics["auc"]["value"] == pytest.approx(roc_auc_score(table["label"], scores, multi_class="ovr"))
    for name, recall in zip("abc", recall_score(table["label"], said, average=None), strict=True):
        assert metrics[f"sensitivity {name}"]["value"] == pytest.approx(recall)
        assert metrics[f"specificity {name}"]["value"] == pytest.approx(np.mean(said[table["label"] != name] != name))
    assert "specificity c" in tables(found)[next(title for title in tables(found) if "Table 2" in title)].index


@pytest.mark.parametrize(
    "change",
    [lambda t: t.iloc[1:], lambda t: pd.concat([t, t.iloc[:1]]), lambda t: t.assign(label=["T3", *t["label"][:-1]])],
)
def test_runs_on_other_lesions_are_refused(change):
    table = predictions()
    table.loc[[0, 40], "label"] = "T4"
    other = change(table[table["run"] == "stl-ri"])
    with pytest.raises(InputError, match="labelled test lesions once each"):
        evaluate(pd.concat([table[table["run"] == "mtl-ri"], other]), ["T3", "T4"])


def test_auxiliary_tasks_against_the_training_majority():
    lesions = pd.DataFrame(
        {"patient_id": list("abcde"), "lesion_id": "1", "split": "test", "level": [1.0, 0, 1, 2, np.nan]}
    )
    said = {0: [1.0, 1, 1, 2, 2], 1: [1.0, 0, 0, 2, 2], 2: [1.0, 0, 0, 0, 2]}
    rows = pd.concat(
        [lesions.assign(run="mtl-ri", seed=s, task="cusp", predicted=p, majority=1.0) for s, p in said.items()]
    )
    found = strict(evaluate(predictions(), ["T3", "T4"], auxiliary=rows))["auxiliary"]
    assert found[0]["lesions"] == 4
    assert found[0]["accuracy"]["value"] == 0.75  # the votes are 1, 0, 0, 2
    assert found[0]["over_seeds"]["values"] == [0.75, 0.75, 0.5]
    assert found[0]["majority"] == 0.5
    assert found[0]["p_mcnemar"] == 1.0  # two lesions against one
    assert "cusp" in format_tables(evaluate(predictions(), ["T3", "T4"], auxiliary=rows))


def test_seeds_that_disagree_about_a_level_are_decided_as_numbers():
    """By the smaller level, in every table, from numbers as from the text of a CSV file ("10.0" is before "2.0")."""
    lesions = pd.DataFrame({"patient_id": list("abc"), "lesion_id": "1", "split": "test", "level": [2.0, 2, 10]})
    rows = pd.concat(
        [
            lesions.assign(run="mtl-ri", seed=seed, task="size", predicted=said, majority=10.0)
            for seed, said in ((0, 10.0), (1, 2.0))
        ]
    )
    text = rows.astype(dict.fromkeys(("level", "predicted", "majority"), str))
    found = [evaluate(predictions(), ["T3", "T4"], auxiliary=table)["auxiliary"] for table in (rows, text)]
    assert found[0] == found[1]
    assert found[0][0]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert found[0][0]["over_seeds"]["values"] == pytest.approx([1 / 3, 2 / 3])
    for table in (rows, text):
        (counts,) = characteristics(votes(table), {}).values()
        assert counts.to_numpy().tolist() == [[2, 0], [1, 0]]
        assert {line[0][2] for line in cases._levels(votes(table), {})["mtl-ri"].values()} == {"2"}


def test_tables_as_printed():
    found = strict(evaluate(predictions(), ["T3", "T4"], selection=SELECTION))
    lines = format_tables(found).splitlines()
    assert found["selection"][1] == {"name": "cusp", "r": None, "p": None, "n": 2, "kept": False, "reason": "constant"}
    assert lines[0] == "Table 1. Characteristics against the label, training lesions"
    assert lines[2].split() == ["lobulation", "0.290", "<", "0.001", "140", "yes"]
    assert lines[3].split() == ["cusp", "undefined", "undefined", "2", "no", "constant"]
    counts = found["test"]["counts"]
    assert lines[5] == (
        f"Table 2. 40 test lesions of 40 patients: {counts['T3']} of class T3, {counts['T4']} of class T4 (positive); "
        "value (95 % CI)"
    )
    item = found["runs"]["mtl-ri"]["metrics"]["auc"]
    assert lines[7].startswith(f"MTL+RI  {item['value']:.3f} ({item['low']:.3f} to {item['high']:.3f})")
    assert max(map(len, lines)) <= 120
    several = format_tables(evaluate(predictions(seeds=(3, 4)), ["T3", "T4"]))
    assert "mean ± SD over the seeds" in several
    assert "Probabilities averaged over the seeds; value (95 % CI)" in several
    assert run_name("stl-tl") == "STL+TL"


def test_predictions_are_read_as_text(tmp_path):
    table = predictions().assign(lesion_id="NA", label="")
    table.to_csv(tmp_path / "predictions.csv", index=False)
    found = numbers(read_csv(tmp_path / "predictions.csv"))
    assert found["patient_id"][0] == "000"
    assert (found["lesion_id"][0], found["label"][0], found["seed"].dtype) == ("NA", "", np.dtype(int))
    pd.testing.assert_series_equal(found["p_T3"], table["p_T3"])


def test_many_runs_lie_on_their_side_only_where_that_is_narrower():
    table = predictions(lesions=12)
    two = {name: evaluate(table, ["T3", "T4"], name) for name in ("T3", "T4")}
    many = {f"{name}-{k}": metrics for k in range(5) for name, metrics in two.items()}
    assert "sensitivity" in format_comparison(many).splitlines()[0]  # seven columns, twenty runs
    three = evaluate(predictions(lesions=12, classes=("T2", "T3", "T4")), ["T2", "T3", "T4"])
    assert "MTL+RI" in format_comparison({"a": three}).splitlines()[0]


def test_run_folders_side_by_side(tmp_path):
    metrics = evaluate(predictions(), ["T3", "T4"])
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert load_metrics(tmp_path) == strict(metrics)
    text = format_comparison({"first": metrics, "second": evaluate(predictions(seed=1), ["T3", "T4"])})
    assert [line.split("  ")[0] for line in text.splitlines()[1:]] == [
        "first MTL+RI", "first STL+RI", "second MTL+RI", "second STL+RI"
    ]  # fmt: skip


def test_run_folders_of_another_positive_class_say_so():
    text = format_comparison({name: evaluate(predictions(), ["T3", "T4"], name) for name in ("T3", "T4")})
    assert text.split("positive")[1].split("\n")[0].split() == ["T3", "T3", "T4", "T4"]


@pytest.mark.parametrize("text", [None, "{", "[]", '{"schema": "other"}'])
def test_a_folder_without_metrics_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=f"no metrics.json of schema {SCHEMA}"):
        load_metrics(tmp_path)


def test_runs_are_tested_on_the_seeds_that_both_have():
    """Five networks' average against one network would be a difference of averaging."""
    table = predictions(seeds=(0, 1, 2))
    uneven = table[(table["run"] != "stl-ri") | (table["seed"] == 1)]
    only = table[table["seed"] == 1]
    found, alone = (strict(evaluate(part, ["T3", "T4"])) for part in (uneven, only))
    assert found["tests"] == alone["tests"]
    assert found["tests"][0]["seeds"] == [1]
    assert len(found["runs"]["mtl-ri"]["seeds"]) == 3
    assert "Probabilities averaged over the seeds (3 of MTL+RI, 1 of STL+RI); value (95 % CI)" in format_tables(found)
    assert "p (DeLong)" in tables(found)["MTL against STL, over the seeds that both have"]


def test_runs_without_a_seed_in_common_are_not_compared():
    table = predictions(seeds=(0, 1))
    apart = table[(table["run"] == "mtl-ri") == (table["seed"] == 0)]
    found = strict(evaluate(apart, ["T3", "T4"]))
    assert (found["tests"][0]["p_auc"], found["tests"][0]["p_mcnemar"]) == (None, None)
    assert verdicts(found) == ["MTL+RI against STL+RI: undefined (no seed is in both)."]


def test_tables_say_what_is_clustered():
    table = tables(strict(evaluate(predictions(per_patient=2), ["T3", "T4"])))
    assert any(title.endswith("value (95 % CI, by patient)") for title in table)
    assert {"p (Obuchowski)", "p (McNemar, by patient)"} <= {*table["MTL against STL"]}


BORDERS = [
    (0.0497, "0.0497", 0.05),
    (0.04999, "0.04999", 0.05),
    (0.05, "0.050", 0.05),
    (0.0496, "0.0496", 0.05),
    (0.12, "0.120", 0.05),
    (0.00006, "0.0001", 0.0),
    (-0.0004, "-0.0004", 0.0),
    (1e-12, "0.000000", 0.0),
    (0.0, "0.000", 0.0),
    (0.8765, "0.876", 0.0),
]


@pytest.mark.parametrize(("value", "text", "edge"), BORDERS)
def test_a_number_is_printed_on_its_side(value, text, edge):
    assert run_tables._told(value, edge) == text


@pytest.mark.parametrize(
    ("threshold", "text"), [(None, "undefined"), (0.4321, "0.432"), (2.1e-18, "2.1e-18"), (1 - 2**-20, "1 - 9.54e-07")]
)
def test_a_threshold_is_printed_so_that_it_can_be_used(threshold, text):
    assert run_tables._threshold(threshold) == text
