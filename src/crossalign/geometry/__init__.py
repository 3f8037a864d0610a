"""Where things are in the patient: grids, rigid transforms, closed-form fits, resampling. LPS, mm."""

from crossalign.geometry.grid import (
    Grid,
)
from crossalign.geometry.resampling import (
    grid_overlap,
    inside_fraction,
    resample,
    resample_labels,
    sample,
)
from crossalign.geometry.rigid import (
    Rigid,
    draw_perturbation,
    euler_to_rotation,
    mean_displacement_mm,
    quarter_turn,
    rotation_to_euler,
)

__all__ = [
    "Grid",
    "Rigid",
    "draw_perturbation",
    "euler_to_rotation",
    "grid_overlap",
    "inside_fraction",
    "mean_displacement_mm",
    "quarter_turn",
    "resample",
    "resample_labels",
    "rotation_to_euler",
    "sample",
]
