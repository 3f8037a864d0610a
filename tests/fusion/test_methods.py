"""Each method on a volume, on a slice, and on lesions."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from tests.fusion.phantom import ball, blurred, head

from crossalign.errors import InputError
from crossalign.fusion.classical import LaplacianPyramid, WaveletFusion
from crossalign.fusion.methods import (
    PLAIN_FUSION_METHODS,
    default_fusion_method_name,
    fusion_method_names,
    named_fusion_method,
)
from crossalign.fusion.metrics.scores import gradient_preservation_score as qabf

CPU = torch.device("cpu")
IN_PLANE = [LaplacianPyramid(axes=(1, 2)), WaveletFusion(axes=(1, 2))]
DETAILED = [LaplacianPyramid(), WaveletFusion(), *IN_PLANE]


@pytest.mark.parametrize("name", PLAIN_FUSION_METHODS)
def test_the_result_is_in_range_and_repeatable_and_the_inputs_are_unchanged(name):
    method, (a, b) = named_fusion_method(name, None, CPU), head()
    before = a.clone(), b.clone()
    fused = method.fuse(a, b)
    assert fused.shape == a.shape
    assert fused.dtype == torch.float32
    assert 0 <= float(fused.min()) <= float(fused.max()) <= 1
    assert torch.equal(fused, method.fuse(a, b))
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])
    assert method.name == name


@pytest.mark.parametrize("shape", [(16, 16, 16), (9, 31, 20), (8, 8, 50)])
@pytest.mark.parametrize("method", DETAILED, ids=lambda method: method.name)
def test_a_volume_fused_with_itself_is_itself(method, shape):
    volume = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(method.fuse(volume, volume), volume, atol=1e-5)


@pytest.mark.parametrize("method", DETAILED, ids=lambda method: method.name)
def test_order_of_the_inputs_does_not_matter(method):
    a, b = head()
    assert torch.allclose(method.fuse(a, b), method.fuse(b, a), atol=1e-5)


@pytest.mark.parametrize("method", IN_PLANE, ids=lambda method: method.name)
def test_slices_are_independent_in_the_plane(method):
    a, b = head()
    fused = method.fuse(a, b)
    alone = method.fuse(a[20:28], b[20:28])
    assert torch.allclose(fused[20:28], alone, atol=1e-6)


def test_wavelet_2d_is_pywavelets_own_on_each_slice():
    import pywt

    a, b = head()
    fused = WaveletFusion(axes=(1, 2)).fuse(a, b)
    for index in (0, 21):
        of_a, of_b = (pywt.wavedec2(v[index].numpy(), "sym4", level=2) for v in (a, b))
        details = [
            tuple(np.where(np.abs(x) >= np.abs(y), x, y) for x, y in zip(p, q, strict=True))
            for p, q in zip(of_a[1:], of_b[1:], strict=True)
        ]
        expected = pywt.waverec2([(of_a[0] + of_b[0]) / 2, *details], "sym4").clip(0, 1)
        level_2 = WaveletFusion(levels=2, axes=(1, 2)).fuse(a, b)[index].numpy()
        assert level_2 == pytest.approx(expected[: a.shape[1], : a.shape[2]], abs=1e-5)
    assert fused.shape == a.shape


def test_the_pyramid_in_3d_preserves_more_gradients_than_slice_by_slice():
    a, b = head()
    scores = []
    for axes in ((0, 1, 2), (1, 2)):
        fused = LaplacianPyramid(axes=axes).fuse(a, b)
        scores.append(float(qabf(fused, a, b)))
    assert scores[0] > scores[1] + 0.005


# Least fraction of a lesion's contrast to preserve: (hot in the PET, cold in the PET, dark in the MRI), all of them in
# white matter, where the MRI is brighter. The average preserves half by definition; the maximum loses the PET's.
PRESERVED = {
    "average": (0.49, 0.49, 0.49),
    "maximum": (0.0, 0.0, 0.9),
    "laplacian": (0.35, 0.35, 0.9),
    "wavelet": (0.45, 0.45, 0.75),
    "laplacian-2d": (0.35, 0.35, 0.9),
    "wavelet-2d": (0.45, 0.45, 0.75),
    "unrolled-ssim": (0.35, 0.35, 0.35),
    "geometric-mean": (0.35, 0.35, 0.2),
    "unrolled-geometric": (0.35, 0.35, 0.2),
}
FOR_NETWORKS = (0.35, 0.25, -0.2)  # balanced, they show little of the MRI


@lru_cache(maxsize=1)
def _without(name):
    return named_fusion_method(name, None, CPU).fuse(*head())


def _preserved(name, insert_a, insert_b, lesion):
    """Change of the fused volume inside the lesion over the change of the input there."""
    a, b = head()
    with_a, with_b = insert_a(a), insert_b(b)
    change = named_fusion_method(name, None, CPU).fuse(with_a, with_b) - _without(name)
    inserted = (with_a - a) + (with_b - b)
    return float(change[lesion].mean() / inserted[lesion].mean())


@pytest.mark.parametrize("name", fusion_method_names())
def test_lesions_are_preserved(name):
    hot = ball((20, 14, 24), 4.0)
    cold = ball((24, 33, 20), 4.0)
    small = ball((23, 25, 30), 2.2)
    least = PRESERVED.get(name, FOR_NETWORKS)

    def same(volume):
        return volume

    preserved = (
        _preserved(name, same, lambda b: (b + 0.5 * blurred(hot.float())).clamp(0, 1), hot),
        _preserved(name, same, lambda b: (b - 0.35 * blurred(cold.float())).clamp(0, 1), cold),
        _preserved(name, lambda a: torch.where(small, a - 0.4, a), same, small),
    )
    assert all(got >= needed for got, needed in zip(preserved, least, strict=True)), preserved


def test_the_maximum_loses_a_hypometabolic_region_under_bright_tissue():
    deep = ball((23, 24, 23), 4.0)  # in white matter, which is brighter in the MRI
    preserved = _preserved("maximum", lambda a: a, lambda b: torch.where(deep, b - 0.2, b).clamp(0, 1), deep)
    assert abs(preserved) < 0.05


def test_names_and_errors_of_unknown_ones():
    assert default_fusion_method_name() in fusion_method_names()
    with pytest.raises(InputError, match="unknown fusion method 'mean', expected one of average"):
        named_fusion_method("mean", None, CPU)
    with pytest.raises(InputError, match="has no emphasis"):
        named_fusion_method("average", "detail", CPU)
    with pytest.raises(InputError, match="balanced, detail, got 'sharp'"):
        named_fusion_method("w.safetensors", "sharp", CPU)


@pytest.mark.parametrize("settings", [{"levels": 0}, {"axes": ()}, {"axes": (3,)}])
@pytest.mark.parametrize("kind", [LaplacianPyramid, WaveletFusion])
def test_invalid_settings_are_an_error(kind, settings):
    with pytest.raises(InputError, match="expected 1 level or more"):
        kind(**settings)
