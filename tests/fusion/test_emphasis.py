"""How much detail a fusion shows: chosen by what is retained of both scans, against their plain average."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fusion.phantom import head

from crossalign.errors import InputError
from crossalign.fusion import fuse
from crossalign.fusion.classical import Average
from crossalign.fusion.emphasis import (
    BALANCED,
    BLOCK,
    BLOCKS,
    LEAST_DETAIL,
    MORE_DETAIL,
    SSIM_MARGIN,
    DetailChoice,
    Gains,
    check_detail,
    choose_detail,
    chosen_by,
    detail_settings,
    sample_boxes,
)
from crossalign.fusion.methods import GEOMETRIC, NetworkFusion, UnrolledOptimiser, named_fusion_method
from crossalign.fusion.metrics.scores import score_fusion
from crossalign.similarity import qabf_score

LARGE = (48, 128, 112)  # more voxels than are fused as a whole
numbers = st.floats(-0.3, 0.3)


def noise(shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(1, 1, *(n // 4 for n in shape), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0, 0].contiguous()


@given(ssim=numbers, qabf=numbers, ssim_slope=st.floats(-0.5, 0.5), qabf_slope=st.floats(-0.5, 0.5))
def test_the_detail_is_that_which_retains_most(ssim: float, qabf: float, ssim_slope: float, qabf_slope: float) -> None:
    def gains(detail: float) -> Gains:
        return Gains(ssim - ssim_slope * detail, qabf + qabf_slope * detail)

    choice = chosen_by(gains)
    assert choice.gains == gains(choice.detail)
    if ssim < SSIM_MARGIN:  # similarity comes first
        assert choice.detail in (LEAST_DETAIL, BALANCED)
        assert choice.gains.ssim == max(gains(LEAST_DETAIL).ssim, ssim)
    else:
        assert choice.detail in (BALANCED, MORE_DETAIL)
        assert choice.gains.ssim >= SSIM_MARGIN
        assert choice.gains.worth() >= gains(BALANCED).worth()


def test_gradients_are_worth_a_little_similarity() -> None:
    def choice(ssim: float, qabf: float) -> float:
        return chosen_by(lambda detail: Gains(0.03 + ssim * (detail > 0), 0.1 + qabf * (detail > 0))).detail

    assert choice(-0.01, 0.06) == BALANCED
    assert choice(-0.01, 0.07) == MORE_DETAIL
    assert choice(-0.026, 1.0) == BALANCED  # less than 0.005 above the average's
    assert choice(0.01, -0.08) == BALANCED


def test_boxes_are_of_one_size_inside_and_at_the_gradients() -> None:
    flat = torch.zeros(LARGE)
    corner = flat.clone()
    corner[:20, :24, :24] = noise((20, 24, 24))
    boxes = sample_boxes(corner, flat)
    assert len(boxes) == BLOCKS
    for box in boxes:
        assert tuple(part.stop - part.start for part in box) == BLOCK
        assert all(part.start >= 0 and part.stop <= size for part, size in zip(box, LARGE, strict=True))
        assert all(part.start < 24 for part in box)
    assert sample_boxes(flat, flat) == []
    assert sample_boxes(flat[:20], flat[:20]) == []
    (whole,) = sample_boxes(corner[:20], flat[:20])
    assert corner[:20][whole].shape == (20, 128, 112)


def test_boxes_estimate_the_score_of_the_whole() -> None:
    """Of a weighted mean: the first input's gradients weaken along x, so that what is retained of both changes."""
    a, b = noise(LARGE), noise(LARGE, seed=1)
    a *= torch.linspace(1, 0.2, LARGE[2])
    fused = 0.7 * a + 0.3 * b

    def qabf(*scans: torch.Tensor) -> float:
        return float(qabf_score(*(scan[None, None] for scan in scans)))

    boxes = sample_boxes(a, b)
    estimate = sum(qabf(fused[box], a[box], b[box]) for box in boxes) / len(boxes)
    assert estimate == pytest.approx(qabf(fused, a, b), abs=0.08)


def test_a_pair_gets_its_detail_and_the_result_says_which() -> None:
    a, b = head()
    method = named_fusion_method("dcfb-compact")
    assert isinstance(method, NetworkFusion)
    assert method.settings()["detail"] == "chosen for each pair"
    chosen = method.for_pair(a, b)
    assert chosen.choice is not None
    assert chosen.name == method.name == "dcfb-compact"
    assert chosen.for_pair(b, a) is chosen
    assert chosen.settings() | {"emphasis": "auto", "detail": f"{chosen.choice.detail:.3g}"} == chosen.settings()
    fixed = NetworkFusion(method.model, chosen.choice.detail)
    assert fixed.for_pair(a, b) is fixed
    assert torch.equal(method.fuse(a, b), fixed.fuse(a, b))
    assert choose_detail(a, b, lambda x, y, _: (x + y) / 2).gains == Gains(0.0, 0.0)  # the average itself


def test_the_unrolled_optimisers_choose_on_request() -> None:
    assert named_fusion_method(GEOMETRIC) == UnrolledOptimiser(GEOMETRIC, BALANCED)
    method = named_fusion_method(GEOMETRIC, "auto")
    assert (method, method.name) == (UnrolledOptimiser(GEOMETRIC, None), "unrolled-geometric-auto")
    a, b = head()
    chosen = method.for_pair(a, b)
    assert isinstance(chosen, UnrolledOptimiser)
    assert chosen.name == method.name
    assert torch.equal(method.fuse(a, b), UnrolledOptimiser(GEOMETRIC, chosen.detail).fuse(a, b))
    assert Average().for_pair(a, b) == Average()
    assert Average().notes() == ()


def test_a_pair_without_gradients_is_fused_balanced() -> None:
    flat = torch.full((16, 16, 16), 0.5)
    assert choose_detail(flat, flat, lambda a, _b, _detail: a) == DetailChoice(BALANCED, Gains(0.0, 0.0))


def test_notes_say_what_is_lacking() -> None:
    (lacking,) = DetailChoice(0.5, Gains(0.1, -0.06)).notes()
    assert "Qabf 0.06 lower, estimated" in lacking
    assert "--emphasis detail" in lacking
    (unlike,) = DetailChoice(-0.3, Gains(-0.002, 0.1)).notes()
    assert "SSIM 0.002 lower" in unlike
    assert DetailChoice(0.0, Gains(0.0, 0.0)).notes() == ()
    settings = detail_settings(0.25, DetailChoice(0.25, Gains(0.01, 0.0)))
    assert (settings["detail"], settings["ssim_gain_estimated"]) == ("0.25", "0.010")


@pytest.mark.parametrize("detail", [-0.31, 1.01])
def test_a_detail_out_of_range_is_an_error(detail: float) -> None:
    with pytest.raises(InputError, match="'detail' runs from"):
        check_detail(detail)


def test_real_pairs_score_no_less_than_their_average(shared_data: Path) -> None:
    """The group averages need less detail than balanced; a patient with bright fat would lose similarity with more."""
    brain, patient = shared_data / "brain", shared_data / "sts" / "sts041"
    pairs = {
        "SPM": [brain / f"spm12_{kind}.nii.gz" for kind in ("T1", "PET")],
        "sts041": [patient / f"{kind}.nii.gz" for kind in ("t1", "pet")],
    }
    details = {}
    for name, (mri, pet) in pairs.items():
        results = [fuse(mri, pet, named_fusion_method(method)) for method in ("dcfb-compact", "average")]
        fused, average = (score_fusion(one.fused.voxels, one.a.voxels, one.b.voxels) for one in results)
        assert fused.inputs["ssim"].mean() > average.inputs["ssim"].mean() + 0.003
        assert fused.qabf > average.qabf + (0.02 if name == "SPM" else -0.11)
        details[name] = float(results[0].settings["detail"])
    assert details == {"SPM": LEAST_DETAIL, "sts041": BALANCED}
