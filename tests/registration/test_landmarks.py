"""Landmarks as an initial transform: the fit is exact where it can be, and says what it leaves."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from crossalign.errors import InputError
from crossalign.geometry import Rigid
from crossalign.images.files.points import PointsFile
from crossalign.registration.landmarks import fit_landmarks

CORNERS = torch.tensor([[0, 0, 0], [30, 0, 0], [0, 25, 0], [0, 0, 40], [10, 20, 30]], dtype=torch.float64)
NAMES = ("apex", "base", "cyst", "left", "right")
MOTION = Rigid.from_parameters(torch.tensor([12.0, -7, 5, 20, -15, 30], dtype=torch.float64), torch.zeros(3))


def points(mm: torch.Tensor, names: tuple[str, ...] = NAMES, weight: tuple[float, ...] = ()) -> PointsFile:
    return PointsFile(names, mm, "", weight)


@given(st.lists(st.floats(-60, 60), min_size=6, max_size=6))
def test_exact_landmarks_give_their_motion_back(values):
    motion = Rigid.from_parameters(torch.tensor(values, dtype=torch.float64), torch.zeros(3))
    fit = fit_landmarks(points(CORNERS), points(motion.apply(CORNERS)))
    torch.testing.assert_close(fit.fixed_to_moving.matrix(), motion.matrix(), atol=1e-6, rtol=0)
    assert fit.rms_mm < 1e-6


def test_the_fit_is_that_of_scipy():
    noise = torch.randn(5, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2
    targets, weight = MOTION.apply(CORNERS) + noise, torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0], dtype=torch.float64)
    fit = fit_landmarks(points(CORNERS, weight=tuple(weight.tolist())), points(targets))
    centers = [(weight[:, None] * one).sum(0) / weight.sum() for one in (CORNERS, targets)]
    expected, _ = Rotation.align_vectors((targets - centers[1]).numpy(), (CORNERS - centers[0]).numpy(), weight.numpy())
    torch.testing.assert_close(fit.fixed_to_moving.rotation, torch.from_numpy(expected.as_matrix()), atol=1e-6, rtol=0)
    torch.testing.assert_close(fit.fixed_to_moving.apply(centers[0][None])[0], centers[1])
    left = (fit.fixed_to_moving.apply(CORNERS) - targets).norm(dim=-1)
    torch.testing.assert_close(fit.residual_mm, left)
    assert fit.rms_mm == pytest.approx(float(((weight * left**2).sum() / weight.sum()).sqrt()))


def test_names_match_landmarks_in_any_order_and_those_of_one_file_are_left_out():
    order = [3, 1, 4, 0]
    moving = points(MOTION.apply(CORNERS)[order], tuple(NAMES[index] for index in order))
    fit = fit_landmarks(points(CORNERS), moving)
    assert set(fit.pairs.names) == set(NAMES) - {"cyst"}
    assert fit.matched_by == "name"
    torch.testing.assert_close(fit.fixed_to_moving.matrix(), MOTION.matrix(), atol=1e-6, rtol=0)


def test_without_common_names_the_order_counts():
    fit = fit_landmarks(points(CORNERS), points(MOTION.apply(CORNERS), ("a", "b", "c", "d", "e")))
    assert fit.matched_by == "order"
    assert fit.rms_mm < 1e-6


LINE = torch.tensor([[0.0, 0, 0], [10, 10, 10], [20, 20, 20], [30, 30, 31]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("fixed", "moving", "says"),
    [
        (points(CORNERS[:2], NAMES[:2]), points(CORNERS[:2], NAMES[:2]), "got 2 corresponding landmarks"),
        (points(LINE, NAMES[:4]), points(LINE, NAMES[:4]), "lie on a line"),
        (points(CORNERS), points(CORNERS[:4], ("a", "b", "c", "d")), "no name is in both files"),
        (points(CORNERS, ("a",) * 5), points(CORNERS), "two fixed landmarks are called 'a'"),
        (points(CORNERS, weight=(1.0, -1.0, 1.0, 1.0, 1.0)), points(CORNERS), "0 or more"),
        (PointsFile(NAMES, CORNERS, "moving"), points(CORNERS), "points of the moving image"),
    ],
)
def test_landmarks_that_cannot_be_fitted_are_refused(fixed, moving, says):
    with pytest.raises(InputError, match=says):
        fit_landmarks(fixed, moving)
