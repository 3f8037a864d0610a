"""The compact network on a whole volume, slab by slab: the same result as `DCFBCompact.forward`, several times faster.

The blocks run on the whole volume, at their low resolution; what follows at full resolution, and the steps after it, on
a few planes at a time (`slab_layers`, `unrolled_by_slabs`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from crossalign.errors import InputError
from crossalign.fusion.networks.compact import DCFBCompact, condition_of, start_and_weights, step_weights_of
from crossalign.fusion.networks.dcfb import padded_to
from crossalign.fusion.networks.mixture import LocalMoments, local_features
from crossalign.fusion.networks.score_gradients import pair_moments, pair_products
from crossalign.fusion.networks.slab_layers import (
    SLAB_VOXELS,
    SlabWork,
    pointwise,
    pointwise_last,
    slab_threads,
    spatial,
    upsampled,
)
from crossalign.fusion.networks.unrolled_by_slabs import improve_scores_by_slabs
from crossalign.similarity.windows import SSIM_RADIUS_VOXEL, Slab, clipped_means_of_slab, slabs_of
from crossalign.types import Volume


@torch.no_grad()
def fuse_by_slabs(model: DCFBCompact, a: Volume, b: Volume, detail: float, slab_voxels: int = SLAB_VOXELS) -> Volume:
    """Fuse two volumes (1, 1, z, y, x) in [0, 1]; agrees with `model(a, b, detail)` but for rounding.

    `slab_voxels` is about how many voxels are processed at once. Raises InputError for a batch of several and for the
    network in the plane.
    """
    if len(a) != 1 or model.planar:
        raise InputError(f"one pair at a time is fused slab by slab, in 3-D, got {len(a)} and planar {model.planar}")
    z, y, x = a.shape[2:]
    pair, details = (a, b), torch.full((1,), detail)
    a, b = (padded_to(volume, (model.settings.multiple,) * 3).contiguous() for volume in pair)
    start, weights, condition = torch.empty_like(a), torch.cat((a, a), dim=1), condition_of(details, a)
    with slab_threads() as threads:
        # On one thread: with a thread too many for the machine's free cores its many small operations, each split
        # anew, took ten times as long.
        context = threads.submit(torch.no_grad()(model.coarse_context), a, b).result()

        def fill(slab: Slab) -> None:
            wider = slab.widened(1)
            moments = _moments(a, b, wider)
            everywhere = condition[:, :, None, None, None].expand_as(moments.a)
            features = upsampled(context, wider, a), local_features(moments), everywhere
            mixed = F.gelu(pointwise_last(model.pointwise, *features))
            hidden = model.modulated(F.gelu(spatial(model.spatial, mixed, slab, wider)), condition)
            prediction = pointwise(model.out, hidden + F.gelu(pointwise(model.second, hidden)))
            begun = start_and_weights(prediction, moments.of_planes(slab.inside(wider)), details)
            start[:, :, slab.planes], weights[:, :, slab.planes] = begun

        SlabWork(slabs_of(a.shape[2:], slab_voxels), threads).each(fill)
    start, weights = (volume[:, :, :z, :y, :x].contiguous() for volume in (start, weights))
    return improve_scores_by_slabs(start, pair, step_weights_of(weights), model.settings.score_steps, slab_voxels)


def _moments(a: Volume, b: Volume, slab: Slab) -> LocalMoments:
    wide = slab.widened(SSIM_RADIUS_VOXEL).planes
    means = clipped_means_of_slab(pair_products(a[:, :, wide], b[:, :, wide]), slab)
    return LocalMoments(a[:, :, slab.planes], b[:, :, slab.planes], *pair_moments(means))
