"""Cases: pairs of scans with a known answer, from a manifest."""

from crossalign.data.case import (
    Landmarks,
    LoadedCase,
    load_case,
    read_landmarks,
)
from crossalign.data.manifest import (
    Case,
    in_split,
    read_manifest,
)

__all__ = [
    "Case",
    "Landmarks",
    "LoadedCase",
    "in_split",
    "load_case",
    "read_landmarks",
    "read_manifest",
]
