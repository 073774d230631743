"""A store's data card: what is in it, how it came to be and what it cannot say, as Markdown.

It says nothing of a single patient: counts, levels, the recipe and versions only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import one_line
from ..manifest import SPLITS
from .reader import PatchStore

UNSAID = """\
A store does not say, and whoever publishes it should: where and when the patients were seen, how they were chosen, who
read the images and how the diagnosis was established, scanners and protocols, ethics approval, consent and licence."""


def flow(store: PatchStore) -> list[dict[str, Any]]:
    """Patients and lesions from the manifest through exclusion to the splits: rows of {name, patients, lesions, ...}.

    The further columns count lesions: `class NAME`, and `unlabelled` for test lesions without a label.
    """
    lesions, skipped = store.lesions, store.skipped
    classes = {f"class {name}": name for name in store.label_classes if name} | {"unlabelled": ""}
    patients = len({*lesions["patient_id"], *skipped["patient_id"]})
    rows: list[dict[str, Any]] = [
        {"name": "in the manifest", "patients": patients, "lesions": len(lesions) + len(skipped)},
        {"name": "left out", "patients": patients - lesions["patient_id"].nunique(), "lesions": len(skipped)},
    ]
    for split in SPLITS:
        part = lesions[lesions["split"] == split]
        counts = {title: int((part["label"] == name).sum()) for title, name in classes.items()}
        rows.append({"name": split, "patients": part["patient_id"].nunique(), "lesions": len(part)} | counts)
    return rows


def data_card(store: PatchStore) -> str:
    """Write a store's data card, Markdown of a few screens."""
    sections = {
        "Patients and lesions": [markdown_table(flow(store)), *_composition(store)],
        "Characteristics": [markdown_table(_characteristics(store))],
        "Patches": list(_patches(store)),
        "Decisions about single rows": list(_decisions(store)),
        "Provenance": list(_provenance(store)),
        "Privacy": [_privacy(store)],
        "Not in the store": [UNSAID],
    }
    text = "\n\n".join(
        f"## {title}\n\n" + "\n\n".join(filter(None, parts)) for title, parts in sections.items() if any(parts)
    )
    return f"# Data card\n\nA ctpatch store of CT patches around lesions. sha256 `{store.digest}`.\n\n{text}\n"


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of rows; the column `name` comes first and has no title."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = ["" if key == "name" else key for key in columns]
    cells = [[row.get(key, "") for key in columns] for row in rows]
    lines = [head, *cells]
    laid = [f"| {' | '.join(map(markdown, line))} |" for line in lines]
    return "\n".join([laid[0], f"|{' --- |' * len(head)}", *laid[1:]])


def markdown(value: object) -> str:
    """Text of one line, as it is: a name from a manifest can neither end its cell nor become markup."""
    return re.sub(r"([\\|<>`*_\[\]#~&])", r"\\\1", one_line(str(value)))


def _composition(store: PatchStore) -> Iterator[str]:
    lesions, skipped = store.lesions, store.skipped
    known = lesions["diameter_mm"].dropna()
    if len(known):
        yield f"Longest in-slice diameter {known.min():.1f} to {known.max():.1f} mm, median {known.median():.1f} mm."
    if len(skipped):
        yield "Why lesions were left out is in the store's `/skipped`; `ctpatch info` lists it."
    per = lesions.groupby("patient_id").size()
    if len(per) and per.max() > 1:
        yield f"{int((per > 1).sum())} patients have several lesions, up to {per.max()}."


def _characteristics(store: PatchStore) -> list[dict[str, Any]]:
    rows = []
    for name, levels in store.aux_levels.items():
        values = store.lesions[f"aux_{name}"]
        found = [(value, int((values == value).sum())) for value in sorted(values.dropna().unique())]
        told = ", ".join(f"{levels.get(value, f'{value:g}')}: {n}" for value, n in found)
        rows.append({"name": name, "levels (lesions)": told, "unknown": int(values.isna().sum())})
    return rows


def _patches(store: PatchStore) -> Iterator[str]:
    recipe = store.recipe
    counts = ", ".join(f"{split} {len(store.split(split))}" for split in SPLITS)
    windows = ", ".join(f"{low} to {high}" for low, high in store.windows)
    yield f"64 × 64 pixels in HU; {counts}. Shown as RGB of 224 × 224 by the windows {windows} HU."
    chosen = ("patches", "augment", "rotate_deg", "shift_mm", "spacing_mm", "lidc_consensus", "seed", "interpolation")
    yield markdown_table([{"name": name, "value": recipe[name]} for name in chosen if name in recipe])


def _decisions(store: PatchStore) -> Iterator[str]:
    """How many rows of the manifest were built with which word of `accept`."""
    rows = [row for row in _listed(store.recipe.get("rows")) if isinstance(row, dict)]
    words = sorted({str(word) for row in rows for word in _listed(row.get("accept"))})
    counts = [{"name": word, "lesions": sum(word in _listed(row.get("accept")) for row in rows)} for word in words]
    yield markdown_table(counts)
    if marked := sum(bool(row.get("center")) for row in rows):
        yield f"The centre of {marked} lesions was given in the manifest."


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _provenance(store: PatchStore) -> Iterator[str]:
    told = store.provenance
    names = {"manifest_sha256": "digest of the manifest's rows", "fold": "fold", "algorithm": "algorithm"}
    yield markdown_table([{"name": text, "value": told[key]} for key, text in names.items() if told.get(key)])
    versions, notes = told.get("versions"), told.get("notes")
    if isinstance(versions, dict):
        yield (
            "Made with "
            + ", ".join(f"{markdown(name)} {markdown(version)}" for name, version in versions.items())
            + "."
        )
    if isinstance(notes, dict) and notes:
        yield f"The build noted something about {len(notes)} lesions; `ctpatch info` lists it."


def _privacy(store: PatchStore) -> str:
    told = store.provenance
    if "keep_uids" not in told:
        return "It was not made by ctpatch build: it holds the patient ids and series that its writer gave it."
    series = "SeriesInstanceUIDs" if told["keep_uids"] else "digests of SeriesInstanceUIDs"
    return (
        f"It holds the manifest's patient ids and {series}, and no other text of the images' headers: no name, date or "
        "path. A store of the head contains the face."
    )
