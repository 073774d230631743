"""What a scan says once all files are paired: contours that are another patient's, and ROIs that may be no lesions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from .tree import ContourFile, Series, Tree, same_patient

ORGANS = (
    *("aorta", "bladder", "bone", "bowel", "brachial", "brain", "breast", "bronch", "carina", "cavity", "chestwall"),
    *("cochlea", "colon", "cord", "duodenum", "esophag", "eyes", "femoral", "femur", "gallbladder", "glnd", "heart"),
    *("hippocampus", "humerus", "intestine", "kidney", "larynx", "lens", "liver", "lobe", "lung", "mandible"),
    *("oesophag", "optic", "oral", "pancreas", "parotid", "pelvis", "prostate", "rectum", "rib", "sacrum", "skin"),
    *("spinal", "spine", "spleen", "sternum", "stomach", "thyroid", "trachea", "vertebra", "vessel"),
    *("body", "external", "outline", "couch", "table", "support", "bolus", "artifact", "ptv", "ctv", "itv", "prv"),
)
"""How words begin that name an organ in TG-263, a help structure, or a target volume that a planner has grown."""
LESIONS = ("lesion", "tumo", "nodul", "mass", "metast", "mets", "cancer", "carcinom")
"""How words begin that make `Lung nodule` none of these."""
_SHOWN = 5


def strangers(tree: Tree, used: Iterable[tuple[ContourFile, Series]]) -> Iterator[str]:
    """A note on each file whose contours go with the series of another patient than the one they come with."""
    pairs = tuple(dict.fromkeys(used))
    drawn = {tree.patients[series.uid] for _, series in pairs}
    for file, series in pairs:
        owner, beside = tree.patients[series.uid], tree.patient_beside(file.path)
        left = f", and then patient {beside!r} has no contours of its own" if beside not in ("", owner, *drawn) else ""
        if not same_patient(series, file):
            if file.patient_id in set(tree.patients.values()) - drawn:
                left = f", and then patient {file.patient_id!r} has no contours of its own"
            said = f"its PatientID is {file.patient_id!r}, but it refers to the CT series of {owner!r}, which is used"
            yield f"{tree.name(file.path)}: {said}{left}"
        elif left:
            said = f"it lies beside the CT series of {beside!r}, but refers to that of {owner!r}, which is used"
            yield f"{tree.name(file.path)}: {said}{left}"


def several(named: Mapping[Path, Sequence[str]]) -> Iterator[str]:
    """A note where files gave more rows than a lesion, or rows that by their names are of no lesion.

    `named` has the ROIs that are rows by file, but for those of which the format itself says that they are lesions.
    """
    files = [names for names in named.values() if len(names) > 1]
    count = Counter(name for names in named.values() for name in names)
    organs = [name for name in count if is_organ(name)]
    others = Counter(name for names in files for name in names if not is_organ(name))
    if not files and not organs:
        return
    parts = {
        "rows of what is named like an organ or help structure": {name: count[name] for name in organs},
        "other ROIs" if organs else "they are": others,
    }
    said = [f"{len(files)} file{'s' * (len(files) != 1)} of contours with several ROIs, a row each"] if files else []
    said += [f"{what}: {_listed(names)}" for what, names in parts.items() if names]
    yield f"{'; '.join(said)}; delete the rows of what is no lesion"


def is_organ(name: str) -> bool:
    """Whether an ROI's name is that of an organ or a help structure."""
    words = re.findall(r"[a-z]+", name.casefold())
    return any(w.startswith(ORGANS) for w in words) and not any(w.startswith(LESIONS) for w in words)


def _listed(count: Mapping[str, int]) -> str:
    shown = [f"{name!r}" + (f" ({n} rows)" if n > 1 else "") for name, n in islice(count.items(), _SHOWN)]
    return ", ".join(shown) + (", …" if len(count) > _SHOWN else "")
