"""The manifest of fusion: a CSV file that says which MRI and PET belong together.

| column | needed | what |
|---|---|---|
| case | yes | name of the pair, unique |
| mri, pet | yes | image files, absolute or relative to the manifest's folder; the structural and the functional scan |
| split | no | `train`, `val` or `test`; `test` where it is absent |
| mask | no | the lesion, a label map on any grid: how far it stands out is scored, or trained for |
| patient | no | who it is; the case's own name where it is absent. A patient may be in one split only |

Rows and columns are named in every error; the header is row 1.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from crossalign.data.manifest import Columns, read_cases

COLUMNS = Columns(("mri", "pet"), ("mask",), default_split="test")


@dataclass(frozen=True)
class FusionPair:
    """One row of a fusion manifest; both paths existed when it was read."""

    name: str
    mri: Path
    pet: Path
    split: str = "test"
    patient: str = ""
    mask: Path | None = None


def read_fusion_manifest(path: str | os.PathLike[str]) -> tuple[FusionPair, ...]:
    """Read and check a manifest, in the order of its rows; raises ManifestError naming row and column."""
    return tuple(FusionPair(**values) for values in read_cases(Path(path), COLUMNS))
