"""The manifest: a CSV with one row per lesion, read as text, all its problems reported together.

The file is read in one pass (`file`, `cells`); then come the checks that need every row: the characteristics
(`levels`), what a split asks of its rows, the labels, the patients, the files (`checks`). Nothing here opens more of
an image or a mask than its first byte.
"""

from .cells import PROBLEMS_MAX
from .digest import manifest_digest
from .file import CELL_MAX, COLUMNS
from .levels import LEVELS_MAX
from .notes import class_notes
from .reader import read_manifest
from .rows import ACCEPTED, SPLITS, Manifest, Row
from .text import FORMULA, MISSING, guarded, patient_key, unguarded

__all__ = [
    "ACCEPTED",
    "CELL_MAX",
    "COLUMNS",
    "FORMULA",
    "LEVELS_MAX",
    "MISSING",
    "PROBLEMS_MAX",
    "SPLITS",
    "Manifest",
    "Row",
    "class_notes",
    "guarded",
    "manifest_digest",
    "patient_key",
    "read_manifest",
    "unguarded",
]
