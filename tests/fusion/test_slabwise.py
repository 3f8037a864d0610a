"""Slab by slab the compact network gives the same result as at once: for any slabs, sizes and threads."""

from dataclasses import replace

import pytest
import torch
from tests.fusion.test_compact import SMALL, build, pair
from tests.fusion.test_unrolled import assert_alike

from crossalign.errors import InputError
from crossalign.fusion.networks.model_files import SLICES, run_fusion_network
from crossalign.fusion.networks.slabwise import fuse_by_slabs


@pytest.mark.parametrize("shape", [(16, 16, 16), (9, 21, 13), (41, 24, 70)])
@pytest.mark.parametrize("slab_voxels", [1, 5000, 2**18])
def test_slabs_agree_with_the_whole(shape: tuple[int, int, int], slab_voxels: int) -> None:
    a, b = pair(*shape, seed=3)
    few, many = (build(3, replace(SMALL, score_steps=steps)).eval() for steps in (2, 24))
    for model, detail in ((few, 0.0), (few, 1.0), (many, 0.0)):
        with torch.no_grad():
            whole = model(a, b, torch.tensor([detail]))
        fused = fuse_by_slabs(model, a, b, detail, slab_voxels)
        assert fused.shape == a.shape
        if model is few:
            torch.testing.assert_close(fused, whole, atol=1e-4, rtol=0)
        else:
            assert_alike(fused, whole)
        assert not fused.requires_grad


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing_and_their_number_is_restored(threads: int) -> None:
    a, b = pair(40, 24, 24)
    model, before = build(settings=replace(SMALL, score_steps=2)).eval(), torch.get_num_threads()
    expected = fuse_by_slabs(model, a, b, 0.0, 4 * 24 * 24)
    try:
        torch.set_num_threads(threads)
        fused = fuse_by_slabs(model, a, b, 0.0, 4 * 24 * 24)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(fused, expected, atol=1e-5, rtol=0)


def test_batches_and_planes_are_an_error() -> None:
    a, b = pair(16, 16, 16)
    with pytest.raises(InputError, match="one pair at a time"):
        fuse_by_slabs(build(), a.expand(2, -1, -1, -1, -1), b.expand(2, -1, -1, -1, -1), 0.0)
    with pytest.raises(InputError, match="in 3-D"):
        fuse_by_slabs(build(planar=True), a, b, 0.0)


def test_the_twin_in_the_plane_is_run_on_a_few_slices_at_a_time() -> None:
    a, b = pair(SLICES + 5, 24, 20)
    model = build(settings=replace(SMALL, score_steps=2), planar=True).eval()
    with torch.no_grad():
        whole = model(a, b, torch.ones(1))
    torch.testing.assert_close(run_fusion_network(model, a, b, 1.0), whole, atol=1e-4, rtol=0)
