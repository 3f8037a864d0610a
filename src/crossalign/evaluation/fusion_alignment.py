"""Bring a PET to an MRI, or an MRI to a template, from no better start than the headers."""

from crossalign.evaluation.fusion_information import mutual_information_score
from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.images import Image, LabelMap, scale_intensity
from crossalign.registration import MutualInformation, RegistrationResult, center_start, register
from crossalign.registration.register import overlap_points, overlap_share

SCORE_SPACING_MM = 4.0
USABLE_HEADER = 0.25
SAME_START_MM = 1.0


def align(fixed: Image, moving: Image, fixed_mask: LabelMap | None = None) -> RegistrationResult:
    """Register rigidly with mutual information, without a start to go from: fixed points to moving points.

    Starts from the middle of both grids, and from the headers too where these put a quarter of the fixed structure into
    the moving grid; the answer with more mutual information over the fixed grid is returned. Raises what `register`
    raises.
    """
    starts = [center_start(fixed, moving)]
    points, header = overlap_points(fixed, fixed_mask), Rigid.identity()
    apart_mm = float(mean_displacement_mm(starts[0], header, points))
    if apart_mm > SAME_START_MM and overlap_share(points, header, moving.grid) >= USABLE_HEADER:
        starts.append(header)
    results = [register(fixed, moving, MutualInformation(), start, fixed_mask) for start in starts]
    return max(results, key=lambda result: shared_information_bits(fixed, moving, result.fixed_to_moving))


def shared_information_bits(fixed: Image, moving: Image, fixed_to_moving: Rigid) -> float:
    """Mutual information of both on a grid of 4 mm that covers the fixed image, bits."""
    grid = fixed.grid.covering((SCORE_SPACING_MM,) * 3)
    return mutual_information_score(
        scale_intensity(fixed).resampled(grid, fill=0.0).voxels,
        scale_intensity(moving).resampled(grid, fixed_to_moving, fill=0.0).voxels,
    )
