"""The study: its formulas against mtltrain's and resampling, changed stores, the queue, and the published numbers."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests
from toystore import predictions, write_store

from ctpatch import open_store
from mtltrain import Settings, metrics
from mtltrain.cohort import read_cohort
from mtltrain.compare import evaluate, load_metrics
from mtltrain.files import write_csv
from mtltrain.pool import pool_folds
from mtltrain.tasks import select

STUDY = Path(__file__).parents[2] / "docs/study"
sys.path.insert(0, str(STUDY))

import characteristics  # noqa: E402
import comparisons  # noqa: E402
import design  # noqa: E402
import formulas  # noqa: E402
import predictions as kept  # noqa: E402
import recompute  # noqa: E402
import run  # noqa: E402
import stores  # noqa: E402
import tables  # noqa: E402

del sys.path[0]


# -- formulas


def clustered(seed, patients=60):
    """Scores of two networks for lesions of patients who have one to four of them and an effect of their own."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    truth = rng.random(patient.size) < 0.45
    own = rng.normal(size=patients)[patient]
    first, second = (np.round(truth + own + rng.normal(size=patient.size), 1) for _ in range(2))  # with ties
    return first, second, truth, patient


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_two_implementations_agree(seed, alone):
    """mtltrain's works by ranks, the study's by pairs; neither calls the other."""
    first, second, truth, patient = clustered(seed)
    patient = np.arange(truth.size) if alone else patient
    ours, theirs = formulas.auc(first, truth, patient), metrics.auc(first, truth, patient)
    assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high), rel=1e-12)
    gap, (other, p) = (
        formulas.difference(first, second, truth, patient),
        metrics.compare_auc(first, second, truth, patient),
    )
    assert (gap.value, gap.low, gap.high, gap.p) == pytest.approx((other.value, other.low, other.high, p), rel=1e-9)


def test_saturated_probabilities_are_ranked_as_mtltrain_ranks_them():
    rest = 10.0 ** -np.arange(3, 33)
    truth, patient = np.random.default_rng(0).random(30) < 0.5, np.arange(30)
    ours = formulas.auc(formulas.exact_order(1 - rest, rest), truth, patient)
    theirs = metrics.auc(metrics.ranking(np.stack([1 - rest, rest], axis=1))[:, 0], truth)
    assert ours.value == pytest.approx(theirs.value, rel=1e-12)
    assert ours.value != pytest.approx(formulas.auc(1 - rest, truth, patient).value, rel=1e-3)


def test_standard_errors_are_those_of_resampled_patients():
    first, second, truth, patient = clustered(3, patients=150)
    rng = np.random.default_rng(0)
    places = [np.flatnonzero(patient == p) for p in range(150)]
    drawn = [np.concatenate([places[p] for p in rng.integers(0, 150, 150)]) for _ in range(600)]
    aucs = np.array([[roc_auc_score(truth[rows], score[rows]) for score in (first, second)] for rows in drawn])
    assert formulas.auc(first, truth, patient).se == pytest.approx(aucs[:, 0].std(), rel=0.1)
    assert formulas.difference(first, second, truth, patient).se == pytest.approx((aucs @ [1, -1]).std(), rel=0.1)


def test_holm():
    p = [0.04, 0.001, 1.0, 0.012, 1.0, 0.013]
    assert formulas.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_detectable_difference_is_found_so_often():
    rng = np.random.default_rng(0)
    z = rng.normal(formulas.detectable(0.02, 0.05) / 0.02, size=200_000)
    assert (abs(z) > 1.959964).mean() == pytest.approx(0.8, abs=0.004)


def toy(path):
    return write_store(path, {"train": 40, "val": 6, "test": 8}, patches=2)


# -- recomputation


@pytest.fixture
def runs(tmp_path):
    """Run folders of three folds, two seeds, two lesions a patient, as mtltrain leaves them."""
    for fold in range(1, 4):
        folder = tmp_path / f"runs/agc/alexnet/main/fold-{fold}"
        test = predictions(seeds=(0, 1), lesions=30, per_patient=2, seed=fold)
        test["patient_id"] = f"AGC{fold}" + test["patient_id"]
        val = predictions(seeds=(0, 1), lesions=12, per_patient=2, seed=9).assign(split="val")
        table = pd.concat([test, val])
        for (arch, seed), rows in table.groupby(["run", "seed"]):
            place = folder / arch / f"seed-{seed}"
            place.mkdir(parents=True)
            write_csv(place / "predictions.csv", rows)
        write_csv(folder / "predictions.csv", table)
        columns = ["patient_id", "lesion_id", "split", "run", "seed", "task", "level", "predicted", "majority"]
        write_csv(folder / "auxiliary.csv", pd.DataFrame(columns=columns))
        (folder / "metrics.json").write_text(json.dumps(evaluate(table, ["T3", "T4"])))
        config = {**asdict(Settings()), "classes": ["T3", "T4"]}
        (folder / "config.json").write_text(json.dumps(config))
    return tmp_path / "runs"


def test_pooled_as_mtltrain_pools(runs, tmp_path):
    kept.write_predictions(kept.from_runs(runs), tmp_path / "predictions")
    table = kept.read_predictions(tmp_path / "predictions")["agc"]
    pooled, _ = pool_folds(sorted((runs / "agc/alexnet/main").iterdir()))
    ours = comparisons.row(table, "alexnet/main/mtl-ri", [0, 1])
    theirs = pooled["runs"]["mtl-ri"]["metrics"]
    assert ours["auc"].low == pytest.approx(theirs["auc"]["low"], rel=1e-7)
    for name in ("accuracy", "sensitivity", "specificity"):
        assert ours[name] == pytest.approx(theirs[name]["value"])
    found = comparisons.versus(table, "alexnet/main/mtl-ri", "alexnet/main/stl-ri")
    test = pooled["tests"][0]
    assert (found.seeds, found.whole, found.first) == ([0, 1], True, pytest.approx(theirs["auc"]["value"]))
    told = [test["auc_difference"]["value"], test["auc_difference"]["high"], test["p_auc"]]
    assert (found.gap.value, found.gap.high, found.gap.p) == pytest.approx(told, rel=1e-7)
    one, two = (pooled["runs"][name]["over_folds"]["auc"]["values"] for name in ("mtl-ri", "stl-ri"))
    assert found.folds == pytest.approx(np.subtract(one, two))
    folds = [
        load_metrics(folder)["tests"][0]["auc_difference"] for folder in sorted((runs / "agc/alexnet/main").iterdir())
    ]
    errors = np.array([fold["high"] - fold["value"] for fold in folds]) / 1.959964
    assert found.within.value == pytest.approx(np.mean(found.folds))
    assert found.within.se == pytest.approx(np.sqrt((errors**2).sum()) / 3, rel=1e-6)


def test_no_identifier_is_kept(runs):
    table = kept.from_runs(runs)["agc"]
    assert set(table[kept.KEYS].dtypes.map(lambda kind: kind.kind)) == {"i"}
    assert table["patient"].nunique() == 45
    order = table.drop_duplicates("patient")["fold"].to_list()
    assert order != sorted(order)


def test_a_seed_that_lacks_a_fold_waits(runs):
    (runs / "agc/alexnet/main/fold-2/stl-ri/seed-1/predictions.csv").unlink()
    table = kept.from_runs(runs)["agc"]
    names = ("alexnet/main/mtl-ri", "alexnet/main/stl-ri")
    assert [comparisons.seeds(table, name) for name in names] == [[0, 1], [0]]
    assert comparisons.versus(table, *names).seeds == [0]
    assert len(comparisons.each_run({"agc": table})) == 2 * 2 * 3 - 1


def test_over_the_folds_that_both_have(runs):
    for seed in (0, 1):
        (runs / f"agc/alexnet/main/fold-2/stl-ri/seed-{seed}/predictions.csv").unlink()
    table = kept.from_runs(runs)["agc"]
    found = comparisons.versus(table, "alexnet/main/mtl-ri", "alexnet/main/stl-ri")
    part = table[table["fold"] != 2]
    assert (found.seeds, found.whole, len(found.folds)) == ([0], False, 2)
    assert found.first == pytest.approx(roc_auc_score(part["positive"], part["alexnet/main/mtl-ri/0"]))
    assert tables.verdicts({"agc": table}).count("not run") == 5
    assert "| not finished |" in tables.verdicts({"agc": table})


def test_lesions_that_differ_within_a_fold(runs):
    path = runs / "agc/alexnet/main/fold-2/stl-ri/seed-1/predictions.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-20]))
    with pytest.raises(SystemExit, match="same lesions"):
        kept.from_runs(runs)


def test_another_number_in_a_run_folder_is_found(runs):
    folder = runs / "agc/alexnet/main/fold-1"
    assert list(recompute.check_folder(folder)) == []
    said = json.loads((folder / "metrics.json").read_text())
    said["tests"][0]["p_auc"] += 1e-4
    (folder / "metrics.json").write_text(json.dumps(said))
    (line,) = recompute.check_folder(folder)
    assert "p 0." in line


def test_other_predictions_than_kept_are_found(runs, tmp_path):
    found = kept.from_runs(runs)
    kept.write_predictions(found, tmp_path / "predictions")
    read = kept.read_predictions(tmp_path / "predictions")
    assert list(kept.differing(found, read)) == []
    read["agc"].iloc[3, 5] += 1e-6
    assert list(kept.differing(found, read)) == ["predictions/agc.csv is not what the run folders hold"]


def test_new_runs_join_those_that_are_kept(runs, tmp_path):
    """Seed 0 is kept and its folders are gone; of seed 1 a fold is not finished."""
    whole = kept.from_runs(runs)
    (runs / "agc/alexnet/main/fold-2/stl-ri/seed-1/predictions.csv").unlink()
    for folder in runs.rglob("seed-0"):
        shutil.rmtree(folder)
    old = {"agc": whole["agc"].drop(columns=[name for name in whole["agc"] if str(name).endswith("/1")])}
    new = kept.from_runs(runs)
    both = kept.joined(new, old)
    whole["agc"].loc[whole["agc"]["fold"] == 2, "alexnet/main/stl-ri/1"] = np.nan
    pd.testing.assert_frame_equal(both["agc"], whole["agc"], check_dtype=False)
    assert list(kept.differing(new, both)) == []
    cells = [design.Cell("agc", "alexnet", "main", 2, seed, ("mtl-ri", "stl-ri")) for seed in range(3)]
    assert [kept.holds(both, cell) for cell in cells] == [True, False, False]
    assert kept.joined({}, old).keys() == {"agc"}
    old["agc"].loc[3, "positive"] ^= 1
    with pytest.raises(SystemExit, match="or of others"):
        kept.joined(new, old)


def test_another_correlation_in_a_run_folder_is_found(tmp_path):
    (tmp_path / "stores").mkdir()
    with open_store(toy(tmp_path / "stores/lidc-1of3.h5")) as store:
        selection = [line.line() for line in select(read_cohort(store, positive="malignant"))[0]]
    folder = tmp_path / "runs/lidc/alexnet/main/fold-1"
    folder.mkdir(parents=True)
    table = characteristics.from_stores(tmp_path)
    assert list(table["name"]) == ["noise", "size"]
    (folder / "metrics.json").write_text(json.dumps({"selection": selection}))
    assert list(characteristics.differing(tmp_path, table)) == []
    selection[1]["r"] *= -1
    (folder / "metrics.json").write_text(json.dumps({"selection": selection}))
    (line,) = characteristics.differing(tmp_path, table)
    assert "size" in line


def test_characteristics_of_stores_that_were_not_made_again_stay():
    told = pd.read_csv(characteristics.FILE)
    again = told[told["cohort"] == "agc"].assign(n=0)
    found = characteristics.joined(again, told)
    assert found[["cohort", "fold", "name"]].equals(told[["cohort", "fold", "name"]])
    assert (found["n"] == 0).tolist() == (told["cohort"] == "agc").tolist()
    pd.testing.assert_frame_equal(characteristics.joined(again[:0], told), told)


# -- the published numbers


def test_the_published_numbers_are_those_of_the_predictions():
    wrong = []
    tables.check(kept.read_predictions(STUDY / "predictions"), wrong)
    assert wrong == []


def test_a_changed_digit_is_found():
    cohorts, text = kept.read_predictions(STUDY / "predictions"), tables.RESULTS.read_text()
    found = tables.networks(cohorts).splitlines()[2]
    place = found.index("0.")
    other = found[: place + 2] + str((int(found[place + 2]) + 1) % 10) + found[place + 3 :]
    assert tables.differing(text.replace(found, other), cohorts) == ["networks"]


def found(gap: float, *folds: float):
    """A comparison whose interval is 0.02 wide on either side."""
    interval = formulas.Interval(gap, 0.01, gap - 0.02, gap + 0.02, 0.01)
    return tables.Comparison([0], 0.8, 0.8 - gap, interval, list(folds), interval)


def test_the_verdict_is_the_protocols():
    gain, nothing = found(0.05, 0.05, 0.04, 0.06), found(0.01, 0.01, 0.0, 0.02)
    assert tables._verdict(gain, 0.03, {}) == "not decided"
    assert tables._verdict(gain, 0.02, {"m = 1": nothing, "shuffled labels": None}) == "support"
    assert "MTL gains with m = 1 too" in tables._verdict(gain, 0.02, {"m = 1": gain, "shuffled labels": nothing})
    assert tables._verdict(found(0.05, -0.1, 0.04, 0.05), 0.02, {}) == "not decided"
    assert tables._verdict(found(-0.05, -0.05), 0.02, {}) == "against"


def test_no_patient_of_lidc_is_named():
    for path in STUDY.rglob("*"):
        if path.suffix in (".csv", ".md"):
            assert "LIDC-IDRI-" not in path.read_text(), path


# -- cells, stores, queue


def test_the_cells_are_the_protocols():
    found = design.cells()
    assert len(set(found)) == len(found)
    for cohort in design.POSITIVE:
        for backbone, archs in (("alexnet", ("mtl-ri", "stl-ri")), ("lite0", ("mtl-tl", "stl-tl"))):
            cells = [
                c for c in found if (c.cohort, c.backbone, c.variant, c.archs) == (cohort, backbone, "main", archs)
            ]
            assert {(c.fold, c.seed) for c in cells} == {(fold, seed) for fold in (1, 2, 3) for seed in range(5)}
    assert {c.variant for c in found} == {"main", "shuffled", *tables.VARIANTS}


def test_shuffled_rows_stay_whole(tmp_path):
    with open_store(toy(tmp_path / "a-1of3.h5")) as store:
        before = store.lesions
    after = stores.changed(before, "shuffled", np.random.default_rng(0))
    train, names = before["split"] == "train", ["aux_noise", "aux_size"]
    assert not before.loc[train, names].equals(after.loc[train, names])
    one, two = (sorted(map(tuple, table.loc[train, names].to_numpy())) for table in (before, after))
    assert one == two
    pd.testing.assert_frame_equal(before[~train], after[~train])
    pd.testing.assert_frame_equal(before.drop(columns=names), after.drop(columns=names))


def test_half_of_the_labels_are_blank(tmp_path):
    with open_store(toy(tmp_path / "a-1of3.h5")) as store:
        before = store.lesions
    after = stores.changed(before, "blank", np.random.default_rng(0)).filter(regex="^aux_")
    train = before["split"] == "train"
    assert after[train].isna().to_numpy().mean() == pytest.approx(0.5, abs=0.12)
    assert after[~train].notna().all(axis=None)


def test_a_share_of_the_patients_of_each_class(tmp_path):
    source = toy(tmp_path / "a-2of3.h5")
    stores.derive(source, tmp_path / "b.h5", "patients30")
    with open_store(source) as before, open_store(tmp_path / "b.h5") as after:
        counts = after.lesions.groupby("split")["label"].value_counts()
        assert counts["train"].to_dict() == {"benign": 6, "malignant": 6}
        assert (counts["val"].sum(), counts["test"].sum()) == (6, 8)
        for index, row in after.lesions[after.lesions["split"] == "train"].iterrows():
            old = before.lesions.index[before.lesions["patient_id"] == row["patient_id"]][0]
            views = [(s.split("train"), i) for s, i in ((before, old), (after, index))]
            first, second = (np.asarray(view.hu)[np.asarray(view.lesion) == i] for view, i in views)
            np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(np.asarray(before.split("test").hu), np.asarray(after.split("test").hu))
    verified = subprocess.run([Path(sys.executable).with_name("ctpatch"), "verify", tmp_path / "b.h5"], check=False)
    assert verified.returncode == 0


def test_weights_of_the_tasks(tmp_path):
    path = toy(tmp_path / "a-1of3.h5")
    with open_store(path) as store:
        train = store.lesions[store.lesions["split"] == "train"]
    size, noise = (
        abs(spearmanr(train[name], train["label"] == "malignant").statistic) for name in ("aux_size", "aux_noise")
    )
    assert stores.tasks(path, "malignant", "shuffled") == [f"size={size:.6f}"]
    assert stores.tasks(path, "malignant", "equal") == [f"size={size:.6f}"]
    assert stores.tasks(path, "malignant", "unrelated") == [f"noise={noise:.6f}", f"size={size:.6f}"]


def fake(cell, root, store, crops):
    """Instead of a training: what it leaves, and that it ran; a fold of GGN fails."""
    code = (
        "import pathlib, sys\n"
        f"open({str(root / 'order.txt')!r}, 'a').write({cell.folder + ' ' + str(cell.seed)!r} + '\\n')\n"
        f"cell = pathlib.Path({str(root / 'runs' / cell.folder)!r})\n"
        "if 'ggn' in str(cell): sys.exit(1)\n"
        f"for arch in {cell.archs!r}:\n"
        f"    path = cell / arch / 'seed-{cell.seed}' / 'predictions.csv'\n"
        "    path.parent.mkdir(parents=True); path.touch()\n"
        "(cell / 'metrics.json').touch()\n"
    )
    return [sys.executable, "-S", "-c", code]


def made(cell, root, crops):
    """Instead of building a store; one of AGC's cannot be built."""
    if cell.store == "agc-2of3":
        raise subprocess.CalledProcessError(1, "ctpatch build")
    return root / cell.store


def test_the_queue_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "call", fake)
    monkeypatch.setattr(stores, "make", made)
    monkeypatch.setattr(run.time, "sleep", lambda seconds: None)
    every = [c for c in design.cells() if c.seed == 0 and c.backbone == "alexnet" and c.variant in ("main", "shuffled")]
    assert run.work(every, tmp_path, tmp_path, 1, float("inf")) == set()  # no cohort but LIDC is there
    first = (tmp_path / "order.txt").read_text().splitlines()
    assert first == [f"lidc/alexnet/{variant}/fold-{k} 0" for variant in ("main", "shuffled") for k in (1, 2, 3)]
    for cohort in ("agc", "ggn"):
        (tmp_path / "cohorts" / cohort).mkdir(parents=True)
        (tmp_path / "cohorts" / cohort / f"{cohort}.csv").touch()
    failed = {(cell.cohort, cell.fold) for cell in run.work(every, tmp_path, tmp_path, 2, float("inf"))}
    assert failed == {("agc", 2), ("ggn", 1), ("ggn", 2), ("ggn", 3)}
    second = (tmp_path / "order.txt").read_text().splitlines()[len(first) :]
    tried = [("agc", 1), ("agc", 3), ("ggn", 1), ("ggn", 2), ("ggn", 3)]
    assert sorted(second) == [f"{cohort}/alexnet/main/fold-{k} 0" for cohort, k in tried]
    assert "failed ggn/alexnet/main/fold-1 seed 0" in capsys.readouterr().out


def test_the_call_of_a_cell(tmp_path):
    (tmp_path / "stores").mkdir()
    toy(tmp_path / "stores/lidc-1of3.h5")
    cell = design.Cell("lidc", "alexnet", "shuffled", 1, 2, ("mtl-ri",))
    words = run.call(cell, tmp_path, Path("s.h5"), tmp_path)
    assert words[words.index("--seeds") + 1] == "2"
    assert words[-2] == "--tasks"
    share = run.call(design.Cell("lidc", "alexnet", "m03", 1, 0, ("mtl-ri",)), tmp_path, Path("s.h5"), tmp_path)
    assert share[-2:] == ["--m", "0.3"]
    small = run.call(design.Cell("lidc", "alexnet", "patients10", 1, 0, ("stl-ri",)), tmp_path, Path("s.h5"), tmp_path)
    assert small[-4:] == ["--epochs", "30", "--patience", "30"]  # argparse takes the last --epochs
