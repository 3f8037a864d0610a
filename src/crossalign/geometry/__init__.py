"""Where things are in the patient: grids, rigid transforms, perturbation, resampling. LPS, mm."""

from crossalign.geometry.grid import Grid
from crossalign.geometry.overlap import grid_overlap, inside_share
from crossalign.geometry.perturbation import draw_perturbation
from crossalign.geometry.resample import resample, resample_labels, sample
from crossalign.geometry.rigid import Rigid, mean_displacement_mm
from crossalign.geometry.rotations import euler_to_rotation, quarter_turn, rotation_to_euler

__all__ = [
    "Grid",
    "Rigid",
    "draw_perturbation",
    "euler_to_rotation",
    "grid_overlap",
    "inside_share",
    "mean_displacement_mm",
    "quarter_turn",
    "resample",
    "resample_labels",
    "rotation_to_euler",
    "sample",
]
