"""The tables of docs/results.md: text between `<!-- name -->` and `<!-- end -->`, from `comparisons`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import characteristics
import pandas as pd
from comparisons import Comparison, each_run, row, seeds, versus
from design import SEEDS, START
from formulas import Interval, detectable, holm, side

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results.md"
RUNS = HERE / "runs.csv"
LOOK = 0.025
"""alpha of one of the protocol's two looks."""
NAMES = {"lidc": "LIDC (real)", "agc": "AGC (simulated)", "ggn": "GGN (simulated)"}
NETWORKS = {"alexnet": "AlexNet", "lite0": "lite0"}
STARTS = {"ri": "random", "tl": "ImageNet"}
PRIMARY = [(cohort, backbone, start) for cohort in NAMES for backbone, start in START.items()]
PAPER = {
    "agc": {
        "mtl-tl": (0.842, 0.793, 0.820, 0.756),
        "mtl-ri": (0.829, 0.774, 0.738, 0.822),
        "stl-tl": (0.765, 0.745, 0.787, 0.689),
        "stl-ri": (0.735, 0.717, 0.738, 0.689),
    },
    "ggn": {
        "mtl-tl": (0.914, 0.859, 0.811, 0.912),
        "mtl-ri": (0.853, 0.817, 0.811, 0.824),
        "stl-tl": (0.848, 0.817, 0.703, 0.941),
        "stl-ri": (0.794, 0.789, 0.730, 0.853),
    },
}
"""Table 2: AUC, accuracy, sensitivity, specificity, of AlexNet."""
VARIANTS = {
    "m03": "m = 0.3",
    "m05": "m = 0.5",
    "main": "**m = 0.7, as in the main comparison**",
    "m09": "m = 0.9",
    "m10": "m = 1: the network's wiring alone, nothing learnt from auxiliary labels",
    "equal": "equal weights of the tasks",
    "unrelated": "unrelated characteristics left in",
    "blank": "half of the auxiliary labels blank",
    "patients30": "30 % of the training patients",
    "patients10": "10 % of the training patients",
}
CONTROLS = {"shuffled": "shuffled labels", "m10": "m = 1"}
"""Variants from which MTL can learn nothing of the characteristics."""
WITHIN = ("each fold's own", "their mean (95 % CI)")
Cohorts = dict[str, pd.DataFrame]


def check(cohorts: Cohorts, wrong: list[str]) -> None:
    """Add to `wrong` what results.md or runs.csv say otherwise."""
    text = RESULTS.read_text()
    wrong += [f"results.md: table {name} is not what the predictions give" for name in differing(text, cohorts)]
    if RUNS.read_text() != each_run(cohorts).to_csv(index=False, lineterminator="\n"):
        wrong.append("runs.csv is not what the predictions give")


def write(cohorts: Cohorts, wrong: list[str]) -> None:
    """Put all tables into results.md, and write runs.csv."""
    text = RESULTS.read_text()
    for name, table in TABLES.items():
        text = _block(name).sub(lambda found, table=table: f"{found[1]}\n{table(cohorts)}\n{found[3]}", text)
    RESULTS.write_text(text)
    each_run(cohorts).to_csv(RUNS, index=False, lineterminator="\n")
    check(cohorts, wrong)


def differing(text: str, cohorts: Cohorts) -> list[str]:
    """Names of the tables that are missing from `text` or say something else."""
    found = {name: _block(name).search(text) for name in TABLES}
    return [name for name, block in found.items() if not block or block[2].strip("\n") != TABLES[name](cohorts)]


def verdicts(cohorts: Cohorts) -> str:
    """The six primary comparisons."""
    found = [
        versus(cohorts[cohort], f"{net}/main/mtl-{start}", f"{net}/main/stl-{start}") if cohort in cohorts else None
        for cohort, net, start in PRIMARY
    ]
    adjusted = holm([one.gap.p if one and one.whole else 1.0 for one in found])
    second = all(one and one.whole and len(one.seeds) == len(SEEDS) for one in found)
    rows = []
    for (cohort, net, start), one, p in zip(PRIMARY, found, adjusted, strict=True):
        place = [NAMES[cohort], f"{NETWORKS[net]}, {STARTS[start]}"]
        if one is None or not one.whole:
            rows.append([*place, *["–"] * 7, "not finished" if one else "not run"])
            continue
        least = " / ".join(f"{detectable(one.gap.se, alpha):.3f}" for alpha in (0.05, LOOK / 6))
        rows.append([*place, str(len(one.seeds)), _signed(one.gap), _p(one.gap.p), _p(p), least])
        single = f"{net}/main/stl-{start}"
        controls = {
            name: versus(cohorts[cohort], f"{net}/{variant}/mtl-{start}", single) for variant, name in CONTROLS.items()
        }
        rows[-1] += [_own(one), _signed(one.within), _verdict(one, p, controls) + " so far" * (p < LOOK and not second)]
    head = [
        "cohort",
        "network, start",
        "seeds",
        "AUC MTL − STL (95 % CI)",
        "p",
        "Holm",
        "detectable",
        *WITHIN,
        "verdict",
    ]
    return _table(head, rows)


def networks(cohorts: Cohorts) -> str:
    """AUC and the rest of every network, beside the paper's."""
    rows = []
    for cohort, table in cohorts.items():
        for net, start, kind in ((n, s, k) for n in NETWORKS for s in ("tl", "ri") for k in ("mtl", "stl")):
            arch, run = f"{kind}-{start}", f"{net}/main/{kind}-{start}"
            if not (chosen := seeds(table, run)):
                continue
            ours, paper = row(table, run, chosen), PAPER.get(cohort, {}).get(arch)
            told = " / ".join(f"{value:.3f}" for value in paper) if paper else "–"
            values = [f"{ours[name]:.3f}" for name in ("accuracy", "sensitivity", "specificity")]
            name = f"{kind.upper()}, {NETWORKS[net]}, {STARTS[start]}"
            rows.append([NAMES[cohort], name, _interval(ours["auc"]), _spread(table, run), *values, told])
    head = ["cohort", "network", "pooled AUC (95 % CI)", "AUC of a training", "accuracy", "sens.", "spec."]
    return _table([*head, "paper: AUC / acc. / sens. / spec."], rows)


def ablations(cohorts: Cohorts) -> str:
    """What the answer depends on: LIDC, AlexNet from random weights, MTL of a variant against its STL."""
    rows = []
    for variant, name in VARIANTS.items():
        single = variant if variant.startswith("patients") else "main"
        rows += _against("lidc", "alexnet", f"{variant}/mtl-ri", f"{single}/stl-ri", cohorts, name)
    return _compared(rows, "variant of MTL", "AUC MTL", "AUC STL")


def control(cohorts: Cohorts) -> str:
    """MTL on shuffled auxiliary labels, against STL, MTL on the true ones, and MTL that learns nothing from any."""
    rows = _against("lidc", "alexnet", "shuffled/mtl-ri", "main/stl-ri", cohorts, "MTL, shuffled labels, against STL")
    rows += _against(
        *("lidc", "alexnet", "main/mtl-ri", "shuffled/mtl-ri", cohorts),
        "MTL, true labels, against MTL, shuffled labels",
    )
    rows += _against(
        *("lidc", "alexnet", "shuffled/mtl-ri", "m10/mtl-ri", cohorts),
        "MTL, shuffled labels, against MTL with m = 1",
    )
    return _compared(rows)


def wiring(cohorts: Cohorts) -> str:
    """Every primary comparison taken apart: what MTL's wiring does, and what the characteristics do."""
    rows = []
    for cohort, net, start in PRIMARY:
        place = f"{NAMES[cohort]}, {NETWORKS[net]}, {STARTS[start]}"
        pairs = (("m = 1 against STL", "m10/mtl", "main/stl"), ("MTL against m = 1", "main/mtl", "m10/mtl"))
        for name, first, second in pairs:
            rows += _against(cohort, net, f"{first}-{start}", f"{second}-{start}", cohorts, f"{place}: {name}")
    return _compared(rows)


def random_lite0(cohorts: Cohorts) -> str:
    """lite0 from random weights."""
    rows = []
    for cohort, name in NAMES.items():
        rows += _against(cohort, "lite0", "main/mtl-ri", "main/stl-ri", cohorts, name)
    return _compared(rows, "cohort", "AUC MTL", "AUC STL")


def sizes(cohorts: Cohorts) -> str:
    """How many were tested."""
    rows = []
    for cohort, table in cohorts.items():
        runs = (each_run({cohort: table})["lesions"] > 0).sum()
        counts = len(table), int(table["positive"].sum()), table["patient"].nunique(), runs
        rows.append([NAMES[cohort], *map(str, counts)])
    return _table(["cohort", "lesions tested", "of them positive", "patients", "trainings"], rows)


def related(cohorts: Cohorts) -> str:
    """Table 1: the characteristics, as many folds as have a store."""
    found, rows = pd.read_csv(characteristics.FILE), []
    for (cohort, name), lines in found.groupby(["cohort", "name"], sort=False):
        least, most = lines["r"].min(), lines["r"].max()
        kept = f"{(lines['p'] < 0.05).sum()} of {len(lines)}"
        rows.append(
            [NAMES[cohort], name.replace("_", " "), f"{lines['r'].mean():+.3f}", f"{least:+.3f} to {most:+.3f}", kept]
        )
    return _table(["cohort", "characteristic", "Spearman r, mean", "folds", "p < 0.05 in"], rows)


TABLES: dict[str, Callable[[Cohorts], str]] = {
    "verdicts": verdicts,
    "networks": networks,
    "control": control,
    "wiring": wiring,
    "ablations": ablations,
    "random_lite0": random_lite0,
    "sizes": sizes,
    "related": related,
}


def _against(cohort: str, net: str, first: str, second: str, cohorts: Cohorts, name: str) -> list[list[str]]:
    table = cohorts.get(cohort, pd.DataFrame())
    found = versus(table, f"{net}/{first}", f"{net}/{second}")
    if found is None:
        return [[name, *["–"] * 3, "not run", *["–"] * 3]]
    size = f"{len(found.seeds)} × {len(found.folds)}"
    aucs = [f"{value:.3f}" for value in (found.first, found.second)]
    return [[name, size, *aucs, _signed(found.gap), _p(found.gap.p), _own(found), _signed(found.within)]]


def _compared(
    rows: list[list[str]], what: str = "", first: str = "AUC of the first", second: str = "AUC of the second"
) -> str:
    """Rows of `_against` under their titles."""
    return _table([what, "seeds × folds", first, second, "difference (95 % CI)", "p", *WITHIN], rows)


def _own(one: Comparison) -> str:
    return ", ".join(f"{difference:+.3f}" for difference in one.folds)


def _verdict(one: Comparison, p: float, controls: dict[str, Comparison | None]) -> str:
    """The protocol's word; where MTL gains without its characteristics too, they are not why."""
    if p >= LOOK:
        return "not decided"
    if one.gap.value < 0:
        return "against"
    if sum(one.folds) <= 0:
        return "not decided"
    gaining = " and ".join(name for name, found in controls.items() if found and found.gap.low > 0)
    return f"**support by the rule, but MTL gains with {gaining} too**" if gaining else "support"


def _spread(table: pd.DataFrame, run: str) -> str:
    """Mean ± SD over folds and seeds."""
    values = pd.Series(
        [
            side(part[f"{run}/{seed}"].to_numpy(), part["positive"].to_numpy(bool)).auc
            for _, part in table.groupby("fold")
            for seed in seeds(table, run)
        ]
    )
    return f"{values.mean():.3f} ± {values.std():.3f}"


def _interval(found: Any) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _signed(found: Interval) -> str:
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _block(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n)(.*?)(\n<!-- end -->)", re.DOTALL)
