"""Seeded anatomies and how MR and ultrasound see them: pairs with a known answer, fast enough to train from."""

from crossalign.simulate.pair import SimulatedPairs, simulate_pairs
from crossalign.simulate.settings import (
    AnatomySettings,
    DeformationSettings,
    MRSettings,
    PoseSettings,
    SimulationSettings,
    UltrasoundSettings,
)
from crossalign.simulate.shapes import simulate_shapes
from crossalign.simulate.shapes_settings import ShapeSettings

__all__ = [
    "AnatomySettings",
    "DeformationSettings",
    "MRSettings",
    "PoseSettings",
    "ShapeSettings",
    "SimulatedPairs",
    "SimulationSettings",
    "UltrasoundSettings",
    "simulate_pairs",
    "simulate_shapes",
]
