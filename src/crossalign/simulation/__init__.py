"""Seeded anatomies and how two modalities show them: pairs with a known answer, fast enough to train from."""

from crossalign.simulation.pairs import SimulatedPairs
from crossalign.simulation.pelvis.pairs import simulate_pairs
from crossalign.simulation.settings import (
    AnatomySettings,
    DeformationSettings,
    MRSettings,
    PoseSettings,
    SimulationSettings,
    UltrasoundSettings,
)
from crossalign.simulation.shapes.pairs import simulate_shapes
from crossalign.simulation.shapes.settings import ShapeSettings

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
