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

__all__ = [
    "AnatomySettings",
    "DeformationSettings",
    "MRSettings",
    "PoseSettings",
    "SimulatedPairs",
    "SimulationSettings",
    "UltrasoundSettings",
    "simulate_pairs",
]
