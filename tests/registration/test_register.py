"""register: what it checks before and after a method runs, initial transforms, and what the result says."""

from dataclasses import dataclass

import pytest
import torch

from crossalign.errors import ImageError, InputError, InputWarning, OverlapError, TransformError
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap
from crossalign.registration import (
    Identity,
    Method,
    Problem,
    Solution,
    Step,
    center_initialisation,
    mask_center_initialisation,
    method_names,
    named_method,
    register,
)

FLIPPED = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
FIXED = Image(torch.rand(20, 20, 20), Grid((20, 20, 20), (1.0, 1.0, 1.0), (5.0, 6.0, 7.0)), "mr")
MOVING = Image(torch.rand(24, 22, 20), Grid((24, 22, 20), (1.0, 1.0, 1.0), (300.0, -80.0, 40.0), FLIPPED), "us")
START = center_initialisation(FIXED, MOVING)


def gland(grid: Grid = FIXED.grid) -> LabelMap:
    labels = torch.zeros(grid.shape, dtype=torch.int64)
    labels[4:9, 6:12, 10:18] = 1
    return LabelMap(labels, grid, "gland")


def shift(x: float, y: float = 0.0, z: float = 0.0) -> Rigid:
    return Rigid.from_translation(torch.tensor([x, y, z], dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class Moves(Method):
    """Answers with the initial transform after a given correction."""

    correction: Rigid

    @property
    def name(self) -> str:
        return "moves"

    def settings(self) -> dict[str, str]:
        return {"how": "by hand"}

    def solve(self, problem: Problem) -> Solution:
        return Solution((Step("one", problem.initial @ self.correction, 0.5),), ("careful",))


def test_identity_returns_the_initial_transform_and_no_motion() -> None:
    result = register(FIXED, MOVING, Identity(), START, gland())
    assert torch.equal(result.fixed_to_moving.matrix(), START.matrix())
    assert result.motion().abs().max() < 1e-12
    assert (result.method, result.warnings, dict(result.settings)) == ("identity", (), {})
    assert [step.name for step in result.steps] == ["identity"]


def test_the_motion_is_the_correction_about_the_glands_centre() -> None:
    parameters = torch.tensor([1.0, -2.0, 3.0, 4.0, -5.0, 6.0], dtype=torch.float64)
    correction = Rigid.from_parameters(parameters, gland().centroid_mm())
    result = register(FIXED, MOVING, Moves(correction), START, gland())
    assert torch.allclose(result.motion(), parameters)
    assert result.shift_mm() == pytest.approx(14**0.5)
    assert result.warnings == ("careful",)
    assert dict(result.settings) == {"how": "by hand"}
    assert torch.allclose(result.center_mm, gland().centroid_mm())


def test_initial_transforms_bring_the_centres_together() -> None:
    assert torch.allclose(START.apply(FIXED.grid.center_mm()[None])[0], MOVING.grid.center_mm())
    start = mask_center_initialisation(gland(), MOVING)
    assert torch.allclose(start.apply(gland().centroid_mm()[None])[0], MOVING.grid.center_mm())
    assert START.angle_deg() == start.angle_deg() == 0


def test_a_mask_of_another_grid_is_refused_and_both_grids_are_named() -> None:
    mask = gland(Grid((20, 20, 20), (1.0, 1.0, 1.1), (5.0, 6.0, 7.0)))
    with pytest.raises(ImageError, match=r"gland.*not lie on the grid of mr.*1 x 1 x 1\.1 mm.*1 x 1 x 1 mm"):
        register(FIXED, MOVING, Identity(), START, mask)


def test_a_mask_on_another_grid_of_the_same_space_is_resampled_with_a_note() -> None:
    whole = gland()
    part = LabelMap(whole.labels[1:, :, :-1], FIXED.grid.part((1, 0, 0), (19, 20, 19)), "part")
    with pytest.warns(InputWarning, match=r"part: the mask was stored on another grid .* that of mr \(exact"):
        result = register(FIXED, MOVING, Identity(), START, part)
    assert torch.allclose(result.center_mm, gland().centroid_mm())


def test_an_empty_mask_is_refused() -> None:
    empty = LabelMap(torch.zeros(20, 20, 20, dtype=torch.int64), FIXED.grid, "gland")
    with pytest.raises(ImageError, match="gland: the mask is empty"):
        register(FIXED, MOVING, Identity(), START, empty)


@pytest.mark.parametrize("mask", [None, gland()])
def test_an_initial_transform_without_overlap_is_refused(mask: LabelMap | None) -> None:
    with pytest.raises(OverlapError, match=r"no point of (mr|gland) into us.*not the other way round"):
        register(FIXED, MOVING, Identity(), START.inverse(), mask)


def test_an_initial_transform_with_little_overlap_is_warned_of() -> None:
    far = shift(18.0) @ START
    result = register(FIXED, MOVING, Identity(), far)
    (warning,), (reason,) = result.warnings, result.reasons
    assert "the initial transform brings only" in warning
    assert "it brings only" in reason
    assert "begin closer (--initial)" in reason
    assert result.trusted is False


def test_a_block_wholly_inside_the_fixed_scan_is_no_lack_of_overlap() -> None:
    """Judged from both sides: all of a block of 4 mm that lies in a scan of 20 mm is compared."""
    for thickness in (1, 4):
        grid = Grid((thickness, 4, 4), (1.0, 1.0, 1.0), (13.0, 14.0, 15.0))
        block = Image(torch.rand(thickness, 4, 4), grid, "block")
        result = register(FIXED, block, Identity(), Rigid.identity())
        assert result.warnings == ()
        assert result.trusted is None


def test_a_result_that_leaves_the_image_is_not_to_be_trusted() -> None:
    result = register(FIXED, MOVING, Moves(shift(500.0)), START, gland())
    assert result.reasons[-1].startswith("it brings only 0% of the fixed structure into the moving image")
    assert (result.warnings, result.trusted) == (("careful",), False)


def test_a_transform_that_is_not_one_finite_transform_is_refused() -> None:
    with pytest.raises(TransformError, match="NaN"):
        register(FIXED, MOVING, Moves(shift(float("nan"))), START)
    with pytest.raises(TransformError, match="NaN"):
        register(FIXED, MOVING, Identity(), shift(float("inf")))
    with pytest.raises(TransformError, match=r"batch \(1,\)"):
        register(FIXED, MOVING, Identity(), Rigid.identity()[None])


def test_methods_are_found_by_name_and_an_unknown_name_lists_them() -> None:
    cpu = torch.device("cpu")
    assert method_names()[:2] == ("identity", "mi")
    assert [named_method(name, cpu).name for name in ("identity", "mi")] == ["identity", "mi"]
    with pytest.raises(InputError, match="unknown method 'elastix', expected one of identity, mi"):
        named_method("elastix", cpu)


def test_sizes_that_only_a_wrong_unit_of_length_explains_are_told() -> None:
    small = Image(torch.rand(20, 20, 20), Grid((20, 20, 20), (0.01, 0.01, 0.01), (0.0, 0.0, 0.0)), "micro")
    found = register(small, MOVING, Identity(), center_initialisation(small, MOVING))
    (warning,) = found.warnings
    assert warning.startswith("micro is 0.346 mm from corner to corner and us 38.2 mm: check the spacing")
    assert register(FIXED, MOVING, Identity(), START).warnings == ()


def test_masks_that_outline_nothing_are_told() -> None:
    spot = LabelMap(torch.zeros(20, 20, 20, dtype=torch.int64), FIXED.grid, "spot")
    spot.labels[10, 10, 10] = 1
    everything = LabelMap(torch.ones(24, 22, 20, dtype=torch.int64), MOVING.grid, "everything")
    found = register(FIXED, MOVING, Identity(), START, spot, everything)
    assert [text.partition(",")[0] for text in found.warnings] == [
        "spot: the mask marks 1 of 8",
        "everything: the mask marks 100% of its image",
    ]
    assert register(FIXED, MOVING, Identity(), START, gland()).warnings == ()
