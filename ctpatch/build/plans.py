"""Plans of lesions on disk between a run's two passes: all are planned before the first is computed.

So a fault in the headers or contours of the last row is found early, and they are read once all the same.
"""

from __future__ import annotations

import contextlib
import hmac
import pickle
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..manifest import Row
from ..recipe import Recipe
from ..store.disk import owned, writing
from .parts import inputs_digest, part_path

if TYPE_CHECKING:  # else whoever waits for workers would load what reads images before it starts them
    from .one_lesion import LesionPlan

_DIGEST = "sha256"
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Plans:
    """The plans of one run.

    Parameters
    ----------
    parts : Path
        The folder of finished lesions; plans lie there as `*.tmp`, so the next build clears up what a killed one left.
    recipe : Recipe
    key : bytes
        A secret of the run: what does not bear its mark was not written by it, and is not unpickled.
    """

    parts: Path
    recipe: Recipe
    key: bytes = field(default_factory=lambda: secrets.token_bytes(_DIGEST_BYTES), repr=False)

    def make(self, row: Row) -> None:
        """Plan a row's lesion. Of a volume file only the header is read: all else in it takes its voxels.

        Raises
        ------
        InputError
            As `plan_lesion`.
        """
        from ..images.volume import is_volume_file, open_volume
        from .one_lesion import plan_lesion

        if is_volume_file(row.image):
            open_volume(row.image)
            return
        inputs = inputs_digest(row)
        plan = plan_lesion(row, self.recipe)
        data = pickle.dumps((inputs, plan), pickle.HIGHEST_PROTOCOL)
        with writing(self.parts.name), open(self._path(row), "wb", opener=owned) as file:
            file.write(hmac.digest(self.key, data, _DIGEST))
            file.write(data)

    def take(self, row: Row, inputs: str) -> LesionPlan:
        """The plan of a row's lesion: the one made before, or where its files have changed since, a new one."""
        from ..images.folder import forget_folder
        from .one_lesion import plan_lesion

        plan = self._made(row, inputs) or plan_lesion(row, self.recipe)
        forget_folder()  # all are planned, or nearly
        return plan

    def _made(self, row: Row, inputs: str) -> LesionPlan | None:
        path, whole = self._path(row), b""
        with writing(self.parts.name), contextlib.suppress(FileNotFoundError):
            whole = path.read_bytes()
            path.unlink()
        mark, data = whole[:_DIGEST_BYTES], memoryview(whole)[_DIGEST_BYTES:]
        if hmac.compare_digest(mark, hmac.digest(self.key, data, _DIGEST)):
            planned, plan = pickle.loads(data)
            return plan if planned == inputs else None
        return None

    def _path(self, row: Row) -> Path:
        return part_path(self.parts, row).with_suffix(".plan.tmp")
