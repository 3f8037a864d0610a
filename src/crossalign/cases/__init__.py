"""Cases: pairs of scans with a known answer, from a manifest."""

from crossalign.cases.case import Landmarks, LoadedCase, load_case, read_landmarks
from crossalign.cases.manifest import Case, in_split, read_manifest
from crossalign.cases.surface import SURFACE_POINTS, surface_points

__all__ = [
    "SURFACE_POINTS",
    "Case",
    "Landmarks",
    "LoadedCase",
    "in_split",
    "load_case",
    "read_landmarks",
    "read_manifest",
    "surface_points",
]
