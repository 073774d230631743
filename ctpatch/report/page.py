"""The page: every lesion looked at, what stands out, and all of it in one file."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from ..build.run import Progress
from ..errors import InputError, one_line, public
from ..manifest import Row, manifest_digest
from ..recipe import Recipe, flag_of
from ..store import PatchStore, open_store, replacing
from . import cohort, outliers, plots
from .cohort import Looked
from .looking import look_at_all, manifest_rows
from .outliers import Finding
from .pictures import widest
from .views import VIEW

PROVENANCE = ("algorithm", "manifest_sha256", "fold", "keep_uids", "compression", "versions")
"""What a build says of itself."""


@dataclass(frozen=True, eq=False)
class Lesion:
    """What the page shows of a lesion: its row in the store, what it showed, notes of the build, what stands out."""

    number: int
    row: Any
    characteristics: Mapping[str, str]
    looked: Looked
    findings: tuple[Finding, ...]


def write_page(
    store_path: Path,
    out: Path,
    manifest_path: Path | None,
    *,
    site: str | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> int:
    """See `ctpatch.report.write_report`."""
    _check_call(out, manifest_path, site)
    with open_store(store_path) as store:
        if store.lesions.empty:
            raise InputError("the store has no lesion", "build one that has", store_path)
        rows = manifest_rows(store, manifest_path)
        told = None if manifest_path is None or site is None else cohort.site_column(manifest_path, site)
        sites = None if told is None else [told.get(row.line, "") if row else "" for row in rows or ()]
        looked = list(look_at_all(store, rows, jobs, progress))
        table = cohort.measures(store, looked, sites)
        lesions = list(_lesions(store, looked, table))
        parts = _environment().get_template("page.html").stream(_context(store_path, store, rows, table, lesions))
        with replacing(out, private=True) as file:
            parts.dump(file, encoding="utf-8")
    return sum(len(lesion.findings) for lesion in lesions)


def _check_call(out: Path, manifest: Path | None, site: str | None) -> None:
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out is {out.name!r}, which is no page", "give a name that ends in .html", out)
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise InputError(
            "--out is a folder, or in a folder that does not exist", "make the folder, name a file in it", out
        )
    if site is not None and manifest is None:
        raise InputError(f"--site {site}, but no --manifest that has such a column", "add --manifest")


# -- Lesions ----------------------------------------------------------------------------------------------------------


def _lesions(store: PatchStore, looked: Sequence[Looked], table: pd.DataFrame) -> Iterator[Lesion]:
    notes = public_notes(store)
    unusual: dict[int, list[Finding]] = defaultdict(list)
    for k, finding in outliers.unusual(table):
        unusual[k].append(finding)
    manifest = any(one.row is not None for one in looked)
    order, lesions, aux = list(outliers.KINDS), store.lesions, store.aux_levels
    for k, (row, one) in enumerate(zip(lesions.itertuples(), looked, strict=True)):
        said = notes.get(f"{row.patient_id} {row.lesion_id}", [])
        found = [*outliers.lesion_findings(one, float(table["diameter_mm"].iloc[k]), said), *unusual[k]]
        if manifest and one.row is None:
            found.append(Finding("not in the manifest", "the manifest has no such patient and lesion"))
        levels = {name: _level(by, float(lesions[f"aux_{name}"].iloc[k])) for name, by in aux.items()}
        yield Lesion(k + 1, row, levels, one, tuple(sorted(found, key=lambda f: order.index(f.kind))))


def _level(names: Mapping[float, str], value: float) -> str:
    return "blank" if np.isnan(value) else names.get(value) or f"{value:g}"


def public_notes(store: PatchStore) -> dict[str, list[str]]:
    """What the build said of each lesion; other programs' stores may hold anything, so it is cleaned again."""
    notes = store.provenance.get("notes")
    if not isinstance(notes, dict):
        return {}
    return {
        who: [one_line(public(str(line))) for line in (lines if isinstance(lines, list) else [lines])]
        for who, lines in notes.items()
    }


# -- The page ---------------------------------------------------------------------------------------------------------


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ctpatch.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = lambda value, unit="": "unknown" if value != value else cohort.figure(value) + unit
    environment.filters["counted"] = outliers.counted
    return environment


def _context(
    store_path: Path,
    store: PatchStore,
    rows: Sequence[Row | None] | None,
    table: pd.DataFrame,
    lesions: Sequence[Lesion],
) -> dict[str, Any]:
    source = Path(__file__).parent
    style, script = ((source / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    groups = [by for by in ("label", "split", "site") if by in table]
    sizes = table["diameter_mm"].dropna()
    return {
        "style": Markup(style),
        "script": Markup(script),
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "VIEW": VIEW,
        "widest": widest,
        "manifest": rows is not None,
        "name": one_line(store_path.name),
        "digest": store.digest,
        "same_manifest": rows is None or _same_manifest(store, rows),
        "windows": store.windows,
        "table": table,
        "units": cohort.UNITS,
        "lesions": lesions,
        "classes": cohort.classes(table),
        "splits": cohort.splits(table),
        "kinds": _kinds(lesions),
        "notes": _alike(lesions),
        "meanings": outliers.KINDS,
        "differences": outliers.group_differences(table),
        "counts": cohort.split_table(table, store.lesions["n_patches"]),
        "characteristics": cohort.characteristic_tables(store),
        "diameters": cohort.quantile_table(table, "diameter_mm").map(cohort.figure) if len(sizes) else None,
        "acquisition": {by: cohort.acquisition_table(table, by) for by in groups},
        "figures": _figures(table, lesions),
        "skipped": [(s.patient_id, s.lesion_id, one_line(public(str(s.reason)))) for s in store.skipped.itertuples()],
        "recipe": _flat(store.recipe, list(Recipe().document())),
        "accepted": _accepted(store.recipe),
        "provenance": _flat(store.provenance, PROVENANCE),
        "command": build_command(store),
    }


def _kinds(lesions: Sequence[Lesion]) -> dict[str, list[Lesion]]:
    """Lesions by what they stand out by, in the order in which to look."""
    return {
        kind: found
        for kind in outliers.KINDS
        if (found := [lesion for lesion in lesions if any(f.kind == kind for f in lesion.findings)])
    }


def _alike(lesions: Sequence[Lesion]) -> dict[str, list[Lesion]]:
    """Lesions by what the build said of them, numbers left out; what was said most often first."""
    found: dict[str, list[Lesion]] = defaultdict(list)
    for lesion in lesions:
        for text in {re.sub(r"[0-9]+([.,][0-9]+)?", "…", f.text) for f in lesion.findings if f.kind == "note"}:
            found[text].append(lesion)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def _same_manifest(store: PatchStore, rows: Sequence[Row | None]) -> bool:
    """Whether the rows say what they said to the build, skipped lesions aside."""
    told = store.provenance.get("manifest_sha256")
    if len(store.skipped) or not all(rows) or told is None:
        return True
    splits = store.lesions["split"]
    return bool(
        manifest_digest(replace(row, split=split) for row, split in zip(rows, splits, strict=True) if row) == told
    )


def _figures(table: pd.DataFrame, lesions: Sequence[Lesion]) -> dict[str, str]:
    """Plots by what they show."""
    columns = [name for name in cohort.UNITS if table[name].notna().any() and (name != "padding" or table[name].any())]
    every = np.array([one.looked.patches.facts.histogram for one in lesions])
    histograms = {name: every[table["label"] == name].sum(axis=0) for name in cohort.classes(table)}
    strips = {f"{cohort.UNITS[name]}, by class": plots.svg_uri(plots.strip(table, name)) for name in columns}
    return strips | {"HU of the original patches, by class": plots.svg_uri(plots.hu_curves(histograms))}


def build_command(store: PatchStore) -> str:
    """The call that makes the store again from its manifest."""
    recipe, provenance = store.recipe, store.provenance
    words = ["ctpatch build --manifest MANIFEST.csv --out STORE.h5"]
    for name in ("seed", "patches", "augment", "rotate_deg", "shift_mm", "spacing_mm", "lidc_consensus"):
        if isinstance(recipe.get(name), int | float):
            words.append(f"{flag_of(name)} {recipe[name]:g}")
    fold = provenance.get("fold")
    words += [f"--fold {fold[0]}/{fold[1]}"] if isinstance(fold, list) and len(fold) == 2 else []
    words += ["--no-rgb"] * (recipe.get("rgb") is False)
    words += ["--keep-uids"] * (provenance.get("keep_uids") is True)
    return " ".join(words + ["--on-error skip"] * bool(len(store.skipped)))


def _accepted(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = recipe.get("rows")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _flat(document: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """What a JSON document says under these names, as text; other programs may have put anything under others."""
    told = {name: document[name] for name in names if name in document}
    flat = pd.json_normalize(told).iloc[0] if told else pd.Series(dtype=object)
    return {str(name): ", ".join(map(str, v)) if isinstance(v, list) else str(v) for name, v in flat.items()}
