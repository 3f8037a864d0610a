"""The unrolled optimiser: slab by slab as at once, golden values, and no better optimum nearby."""

import pytest
import torch
from tests.fusion.phantom import blurred, head
from tests.fusion.test_compact import pair

from crossalign.errors import InputError
from crossalign.fusion.methods import GEOMETRIC, UNROLLED, UnrolledOptimiser, named_fusion_method
from crossalign.fusion.metrics.scores import gradient_preservation_score as qabf
from crossalign.fusion.metrics.scores import structural_similarity_score as ssim
from crossalign.fusion.networks.score_gradients import pair_statistics
from crossalign.fusion.networks.unrolled import (
    FROM_AVERAGE,
    FROM_GEOMETRIC_MEAN,
    GradientLimit,
    StepWeights,
    geometric_start,
    improve_scores,
    optimise_scores,
)
from crossalign.fusion.networks.unrolled_by_slabs import improve_scores_by_slabs, optimise_scores_by_slabs


def assert_alike(fused: torch.Tensor, expected: torch.Tensor) -> None:
    """Many steps amplify rounding in a few voxels: where two gradients are parallel that of Qabf changes abruptly."""
    apart = (fused - expected).abs()
    assert float(apart.mean()) < 1e-4
    assert float((apart > 1e-3).float().mean()) < 0.005
    assert float(apart.max()) < 0.03


@pytest.mark.parametrize("shape", [(16, 16, 16), (9, 21, 13), (41, 24, 30)])
@pytest.mark.parametrize("slab_voxels", [1, 5000, 2**18])
def test_slabs_agree_with_the_whole(shape: tuple[int, int, int], slab_voxels: int) -> None:
    a, b = pair(*shape, seed=3)
    for detail in (0.0, 1.0):
        fused = optimise_scores_by_slabs(a, b, detail, FROM_AVERAGE, slab_voxels)
        torch.testing.assert_close(fused, optimise_scores(a, b, detail), atol=1e-4, rtol=0)
        fused = optimise_scores_by_slabs(a, b, detail, FROM_GEOMETRIC_MEAN, slab_voxels)
        assert_alike(fused, optimise_scores(a, b, detail, FROM_GEOMETRIC_MEAN))


def voxel_weights(like: torch.Tensor) -> StepWeights:
    qabf, fraction = pair(*like.shape[2:], seed=8)
    return StepWeights(0.05 + 0.1 * qabf, 0.3 + 0.7 * fraction)


@pytest.mark.parametrize("slab_voxels", [1, 5000, 2**18])
def test_steps_with_weights_for_each_voxel_agree_slab_by_slab(slab_voxels: int) -> None:
    a, b = pair(25, 21, 18, seed=4)
    start, weights = geometric_start(a, b), voxel_weights(a)
    before = start.clone()
    few, many = (improve_scores(start, pair_statistics(a, b), weights, steps) for steps in (3, 24))
    fused = improve_scores_by_slabs(start, (a, b), weights, 3, slab_voxels)
    torch.testing.assert_close(fused, few, atol=2e-5, rtol=0)
    assert_alike(improve_scores_by_slabs(start, (a, b), weights, 24, slab_voxels), many)
    assert torch.equal(start, before)
    assert float((few - start).abs().mean()) > 1e-3


def test_a_fraction_of_zero_takes_no_step() -> None:
    a, b = pair(16, 16, 16)
    start = geometric_start(a, b)
    assert torch.equal(improve_scores(start, pair_statistics(a, b), StepWeights(0.1, 0.0), 4), start)
    assert torch.equal(improve_scores(start, pair_statistics(a, b), StepWeights(0.1), 0), start)


def test_gradients_go_through_the_steps() -> None:
    """The derivative by the start and by both weights is that of finite differences, but for a few kinks."""
    a, b = pair(12, 12, 12, seed=6)
    statistics, generator = pair_statistics(a, b), torch.Generator().manual_seed(3)
    values = [geometric_start(a, b), torch.full_like(a, -2.0), torch.full_like(a, 0.5)]
    target = torch.rand(a.shape, generator=generator)

    def distance(start: torch.Tensor, log_qabf: torch.Tensor, fraction: torch.Tensor) -> torch.Tensor:
        weights = StepWeights(torch.exp(log_qabf), fraction)
        return (improve_scores(start, statistics, weights, 2) - target).double().square().sum()

    leaves = [value.clone().requires_grad_() for value in values]
    for number, gradient in enumerate(torch.autograd.grad(distance(*leaves), leaves)):
        direction = gradient / gradient.norm()  # where the change is largest, rounding counts least
        moved = []
        for size in (0.01, -0.01):
            parts = list(values)
            parts[number] = parts[number] + size * direction
            moved.append(float(distance(*parts)))
        assert (moved[0] - moved[1]) / 0.02 == pytest.approx(float(gradient.norm()), rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_does_not_grow_through_many_steps(seed: int) -> None:
    """Kinks multiply: without the limit its norm is up to thousands of times that by the last volume."""
    a, b = pair(16, 20, 20, seed=seed)
    start = geometric_start(a, b).requires_grad_()
    fused = improve_scores(start, pair_statistics(a, b), StepWeights(0.15), 24, limit_gradient=True)
    by_start, by_last = torch.autograd.grad((fused - 0.3).square().sum(), (start, fused))
    assert 0.1 * float(by_last.norm()) < float(by_start.norm()) < 2 * float(by_last.norm())
    assert float(by_start.abs().max()) < 3 * float(by_last.abs().max())


def test_the_gradient_is_limited_by_the_first_one_of_each_volume() -> None:
    limit, first = GradientLimit(), torch.tensor([0.5, -2.0, 0.1, 0.0]).reshape(2, 1, 1, 1, 2)
    assert torch.equal(limit(first), first)
    later = torch.tensor([3.0, -1.0, -3.0, 0.05]).reshape(2, 1, 1, 1, 2)
    assert limit(later).flatten().tolist() == pytest.approx([2.0, -1.0, -0.1, 0.05])


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing_and_their_number_is_restored(threads: int) -> None:
    a, b = pair(40, 24, 24)
    before = torch.get_num_threads()
    expected = optimise_scores_by_slabs(a, b, 0.0, slab_voxels=4 * 24 * 24)
    try:
        torch.set_num_threads(threads)
        fused = optimise_scores_by_slabs(a, b, 0.0, slab_voxels=4 * 24 * 24)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(fused, expected, atol=1e-5, rtol=0)


def test_it_raises_what_it_optimises_and_detail_weighs_gradients_more() -> None:
    a, b = head()
    balanced, detail = (UnrolledOptimiser(UNROLLED, value).fuse(a, b) for value in (0.0, 1.0))
    average = (a + b) / 2
    scores = [(float(ssim(f, a) + ssim(f, b)) / 2, float(qabf(f, a, b))) for f in (average, balanced, detail)]
    assert scores[1][0] > scores[0][0] + 0.005
    assert scores[1][1] > scores[0][1]
    assert scores[2][1] > scores[1][1] + 0.03


def test_from_the_geometric_mean_uptake_stays_above_bright_fat() -> None:
    """Dark in the MRI and hot in the PET: the average and the optimiser from it leave the fat brighter."""
    scan = torch.stack(torch.meshgrid(*(torch.arange(32) - 15.5 for _ in range(3)), indexing="ij"))
    tumour, around = (scan.square().sum(0).sqrt() < radius for radius in (6.0, 13.0))
    texture = 0.03 * torch.randn(2, 32, 32, 32, generator=torch.Generator().manual_seed(5))
    a, b = torch.where(tumour, 0.3, 0.8) + texture[0], blurred(torch.where(tumour, 0.4, 0.08)) + 0.2 * texture[1]
    a, b = a.clamp(0, 1), b.clamp(0, 1)
    above = {
        name: float(fused[tumour].mean() - fused[around & ~tumour].mean())
        for name in ("average", "unrolled-ssim", "geometric-mean", "unrolled-geometric")
        for fused in (named_fusion_method(name).fuse(a, b),)
    }
    shown, hidden = (above["geometric-mean"], above["unrolled-geometric"]), (above["average"], above["unrolled-ssim"])
    assert min(shown) > 0.05 > -0.05 > max(hidden)


def test_from_the_geometric_mean_scores_are_raised_too() -> None:
    a, b = head()
    balanced, detail = (UnrolledOptimiser(GEOMETRIC, value).fuse(a, b) for value in (0.0, 1.0))
    start = geometric_start(a[None, None], b[None, None])[0, 0]
    scores = [(float(ssim(f, a) + ssim(f, b)) / 2, float(qabf(f, a, b))) for f in (start, balanced, detail)]
    assert scores[1][0] > scores[0][0] + 0.005
    assert scores[2][1] > scores[1][1] > scores[0][1]
    assert UnrolledOptimiser(GEOMETRIC, 1.0).name == "unrolled-geometric-detail"
    assert named_fusion_method("unrolled-geometric", "detail") == UnrolledOptimiser(GEOMETRIC, 1.0)


def test_it_is_a_method_without_weights() -> None:
    method = named_fusion_method("unrolled-ssim", "detail")
    assert method == UnrolledOptimiser(UNROLLED, 1.0)
    assert method.name == "unrolled-ssim-detail"
    assert method.settings() == {"detail": "1"}
    assert named_fusion_method("unrolled-ssim").name == "unrolled-ssim"
    with pytest.raises(InputError, match="balanced, detail"):
        named_fusion_method("unrolled-ssim", "sharp")
    with pytest.raises(InputError, match="'detail' runs from"):
        UnrolledOptimiser(UNROLLED, 2.0)
    with pytest.raises(InputError, match="one of unrolled-ssim, unrolled-geometric, got 'sharp'"):
        UnrolledOptimiser("sharp")


# (mean, standard deviation, voxels (i, i, i) for i of 6, 12, 16, 20, 24, 28) of the network that it was
# whose drawn layers were set to 0 (at commit 29525d5), on the phantom's first 32 voxels along each axis.
GOLDEN = {
    0.0: (0.215784, 0.252046, (0.0, 0.52478, 0.54923, 0.53673, 0.51476, 0.5539)),
    1.0: (0.219999, 0.260166, (0.0001, 0.59566, 0.59904, 0.54722, 0.52113, 0.56526)),
}


@pytest.mark.parametrize("detail", GOLDEN)
def test_it_agrees_with_the_network_that_it_was(detail: float) -> None:
    a, b = (volume[None, None, :32, :32, :32] for volume in head())
    fused = optimise_scores_by_slabs(a, b, detail)
    mean, sd, voxels = GOLDEN[detail]
    assert float(fused.mean()) == pytest.approx(mean, abs=2e-6)
    assert float(fused.std()) == pytest.approx(sd, abs=2e-6)
    diagonal = [float(fused[0, 0, i, i, i]) for i in (6, 12, 16, 20, 24, 28)]
    assert diagonal == pytest.approx(voxels, abs=3e-5)
