"""Every score against a library, or against its definition written out."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from crossalign.errors import InputError
from crossalign.fusion.metrics import fidelity, information
from crossalign.fusion.metrics.scores import gradient_preservation_score as qabf
from crossalign.fusion.metrics.scores import score_fusion
from crossalign.fusion.metrics.scores import structural_similarity_score as ssim
from crossalign.similarity import gradients, local_scores
from crossalign.similarity.windows import slabs_of


def _smooth(shape: tuple[int, ...], seed: int) -> Tensor:
    """A smooth random field that spans [0, 1]."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    return torch.from_numpy((field - field.min()) / (field.max() - field.min())).float()


SHAPES = [(24, 21, 27), (40, 33)]


@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_is_scikit_images(shape):
    from skimage.metrics import structural_similarity

    x, y = _smooth(shape, 1), _smooth(shape, 2)
    expected = structural_similarity(
        x.double().numpy(), y.double().numpy(), data_range=1, gaussian_weights=True, use_sample_covariance=False
    )
    assert float(ssim(x, y)) == pytest.approx(expected, abs=1e-5)


def test_ssim_of_a_volume_is_monais():
    from monai.metrics.regression import SSIMMetric

    x, y = _smooth((24, 21, 27), 3), _smooth((24, 21, 27), 4)
    expected = torch.as_tensor(SSIMMetric(spatial_dims=3, data_range=1.0)(x[None, None], y[None, None]))
    assert float(ssim(x, y)) == pytest.approx(float(expected), abs=1e-4)


def test_ssim_of_a_small_volume_is_an_error():
    with pytest.raises(InputError, match="11 voxels"):
        ssim(torch.rand(10, 20, 20), torch.rand(10, 20, 20))


def _qabf_by_definition(f: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Xydeas and Petrovic's formulae on a plane, with scipy's Sobel filter and their orientation by arctan."""
    from scipy.ndimage import sobel

    def edges(image):
        sx, sy = sobel(image, 1, mode="nearest"), sobel(image, 0, mode="nearest")
        return np.hypot(sx, sy), np.arctan(np.divide(sy, sx, out=np.full_like(sy, np.inf), where=sx != 0))

    def preserved(of_f, of_s):
        (g_f, o_f), (g_s, o_s) = of_f, of_s
        strength = np.where(g_f > g_s, g_s / g_f, g_f / g_s)
        orientation = np.abs(np.abs(o_s - o_f) - np.pi / 2) / (np.pi / 2)
        return 0.9994 / (1 + np.exp(-15 * (strength - 0.5))) * 0.9879 / (1 + np.exp(-22 * (orientation - 0.8)))

    of_f, of_a, of_b = edges(f), edges(a), edges(b)
    up = (preserved(of_f, of_a) * of_a[0] + preserved(of_f, of_b) * of_b[0]).sum()
    return float(up / (of_a[0] + of_b[0]).sum())


def test_qabf_of_a_plane_is_its_definition():
    f, a, b = (_smooth((40, 30), seed) for seed in (8, 9, 10))
    expected = _qabf_by_definition(*(field.double().numpy() for field in (f, a, b)))
    assert float(qabf(f, a, b)) == pytest.approx(expected, abs=1e-4)


def test_qabf_in_3d_of_a_volume_without_change_along_an_axis_is_that_of_its_plane():
    planes = [_smooth((40, 30), seed) for seed in (8, 9, 10)]
    volumes = [plane.expand(12, -1, -1) for plane in planes]
    assert float(qabf(*volumes)) == pytest.approx(float(qabf(*planes)), abs=1e-5)


def test_qabf_of_a_copy_and_without_gradients():
    a, flat = _smooth((12, 12, 12), 11), torch.zeros(12, 12, 12)
    assert float(qabf(a, a, a)) == pytest.approx(0.9994 * 0.9879 / (1 + math.exp(-7.5)) / (1 + math.exp(-4.4)))
    assert float(qabf(flat, a, a)) == 0
    assert math.isnan(float(qabf(a, flat, flat)))


@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_and_qabf_can_be_differentiated(shape):
    f = (_smooth(shape, 12) * (_smooth(shape, 13) > 0.4)).requires_grad_()  # with flat regions
    a, b = _smooth(shape, 14), _smooth(shape, 15)
    (ssim(f, a) + qabf(f, a, b)).backward()
    assert f.grad is not None
    assert bool(f.grad.isfinite().all())
    assert float(f.grad.abs().max()) > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_psnr_is_scikit_images(shape):
    from skimage.metrics import peak_signal_noise_ratio

    x, y = _smooth(shape, 16), _smooth(shape, 17)
    expected = peak_signal_noise_ratio(x.double().numpy(), y.double().numpy(), data_range=1)
    assert fidelity.peak_signal_noise_ratio_db(x, y) == pytest.approx(expected, abs=1e-4)
    assert fidelity.peak_signal_noise_ratio_db(x, x) == math.inf


@pytest.mark.parametrize("shape", SHAPES)
def test_nmi_is_scikit_images(shape):
    from skimage.metrics import normalized_mutual_information

    x, y = _smooth(shape, 18), _smooth(shape, 19) * 0.7
    expected = normalized_mutual_information(x.double().numpy(), y.double().numpy())
    assert information.normalized_mutual_information_score(x, y) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_mi_and_entropy_are_scikit_learns_and_scipys(shape):
    from scipy.stats import entropy
    from sklearn.metrics import mutual_info_score

    x, y = _smooth(shape, 20), _smooth(shape, 21)
    cells = [np.minimum((field.double().numpy().ravel() * 256).astype(int), 255) for field in (x, y)]
    expected = mutual_info_score(*cells) / math.log(2)
    assert information.mutual_information_score(x, y) == pytest.approx(expected, abs=1e-9)
    expected = entropy(np.bincount(cells[0]), base=2)
    assert information.entropy_bits(x) == pytest.approx(expected, abs=1e-9)


def test_vif_of_a_plane_is_torchmetrics():
    from torchmetrics.functional.image import visual_information_fidelity

    x, y = _smooth((70, 60), 22), _smooth((70, 60), 23)
    x = 0.7 * y + 0.3 * x
    expected = visual_information_fidelity((x * 255)[None, None], (y * 255)[None, None])
    assert fidelity.visual_information_fidelity_score(x, y) == pytest.approx(float(expected), abs=1e-4)


def test_vif_in_3d_is_1_for_a_copy_and_falls_with_blur_and_noise():
    from scipy.ndimage import gaussian_filter

    y = _smooth((44, 42, 46), 24)
    blurred = torch.from_numpy(gaussian_filter(y.numpy(), 2.0))
    more = torch.from_numpy(gaussian_filter(y.numpy(), 4.0))
    vif = fidelity.visual_information_fidelity_score
    assert vif(y, y) == pytest.approx(1, abs=1e-6)
    assert 1 > vif(blurred, y) > vif(more, y) > 0
    assert math.isnan(vif(y[:40], y[:40]))


def test_spatial_frequency_is_its_definition():
    x = _smooth((9, 8, 7), 25).double().numpy()
    squares = [np.mean(np.diff(x, axis=axis) ** 2) for axis in range(3)]
    assert fidelity.spatial_frequency_score(torch.from_numpy(x)) == pytest.approx(math.sqrt(sum(squares)))


def _fmi_of_a_window(f: np.ndarray, r: np.ndarray) -> float:
    """Fast-FMI of one window, step by step."""
    if (f == r).all():
        return 1.0

    def distribution(window):
        low, high = window.min(), window.max()
        scaled = np.ones(window.size) if low == high else (window.ravel(order="F") - low) / (high - low)
        return scaled / scaled.sum()

    def entropy(probabilities):
        return -sum(p * math.log2(p) for p in np.ravel(probabilities) if p > 1e-15)

    p, q = distribution(f), distribution(r)
    n, position = p.size, np.arange(1, p.size + 1)
    sds = [math.sqrt(max(0.0, (s * position**2).sum() - (s * position).sum() ** 2)) for s in (p, q)]
    flat = np.ptp(p) == 0 or np.ptp(q) == 0
    correlation = 0.0 if flat else np.corrcoef(p, q)[0, 1]
    bound = np.zeros((n + 1, n + 1))
    for i in range(1, n + 1):
        for j in range(1, n + 1):
            u, v = p[:i].sum(), q[:j].sum()
            bound[i, j] = min(u, v) if correlation >= 0 else max(0.0, u + v - 1)
    independent = np.outer(p.cumsum(), q.cumsum())
    of_bound = (bound[1:, 1:] - independent).sum() / (sds[0] * sds[1])
    weight = correlation / of_bound if correlation != 0 else 0.0
    joint = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            mass = bound[i + 1, j + 1] - bound[i, j + 1] - bound[i + 1, j] + bound[i, j]
            joint[i, j] = max(0.0, weight * mass + (1 - weight) * p[i] * q[j])
    return 2 * (entropy(p) + entropy(q) - entropy(joint)) / (entropy(p) + entropy(q))


def test_fmi_is_its_definition_window_by_window():
    f, r = _smooth((9, 8), 26).double(), _smooth((9, 8), 27).double()
    f[:4, :4], r[3:7, 2:6] = 0.25, 0.5  # flat windows, and windows that are equal
    r[:, 5:] = f[:, 5:]
    values = [
        _fmi_of_a_window(f[y : y + 3, x : x + 3].numpy(), r[y : y + 3, x : x + 3].numpy())
        for y in range(7)
        for x in range(6)
    ]
    assert information.feature_mutual_information_score(f, r) == pytest.approx(np.mean(values), abs=1e-9)
    single = information.feature_mutual_information_score(f.float(), r.float())
    assert single == pytest.approx(np.mean(values), abs=1e-4)


def test_fmi_of_a_volume_is_the_mean_of_its_planes():
    f, r = _smooth((3, 12, 10), 28), _smooth((3, 12, 10), 29)
    fmi = information.feature_mutual_information_score
    assert fmi(f, r) == pytest.approx(np.mean([fmi(x, y) for x, y in zip(f, r, strict=True)]), abs=1e-6)
    assert fmi(f, f) == 1


RANGED = [
    ssim,
    fidelity.peak_signal_noise_ratio_db,
    fidelity.visual_information_fidelity_score,
    information.mutual_information_score,
    lambda f, _: information.entropy_bits(f),
    lambda f, _: fidelity.spatial_frequency_score(f),
    lambda f, r: score_fusion(f, r, r).qabf,
]
UNITLESS = [
    lambda f, r: float(qabf(f, r, r)),
    information.normalized_mutual_information_score,
    information.feature_mutual_information_score,
]


@pytest.mark.parametrize("score", RANGED)
@pytest.mark.parametrize("factor", [255.0, -1.0])
def test_values_outside_the_range_of_a_score_are_an_error(score, factor):
    f, r = _smooth((12, 13, 14), 30) * factor, _smooth((12, 13, 14), 31) * factor
    with pytest.raises(InputError, match=r"for values in \[0, 1\], got .* to .*: scale all images"):
        score(f, r)


@pytest.mark.parametrize("score", UNITLESS)
@pytest.mark.parametrize("factor", [255.0, 1e-20, 1e20])
def test_other_scores_do_not_depend_on_the_unit(score, factor):
    f, r = _smooth((12, 13, 14), 30), _smooth((12, 13, 14), 31)
    assert score(f * factor, r * factor) == pytest.approx(score(f, r), abs=1e-3)


@pytest.mark.parametrize("score", [*RANGED, *UNITLESS])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda v: v.index_fill(0, torch.tensor([2]), math.nan), "finite"),
        (lambda v: (v * 255).to(torch.uint8), "floating-point"),
    ],
    ids=["nan", "integers"],
)
def test_what_cannot_be_scored_is_an_error(score, spoil, words):
    f, r = spoil(_smooth((12, 13, 14), 30)), _smooth((12, 13, 14), 31)
    with pytest.raises((InputError, TypeCheckError), match=words if words == "finite" else None):
        score(f, r)


def test_volumes_of_two_shapes_are_an_error():
    f, r = _smooth((12, 13, 14), 30), _smooth((12, 13, 15), 31)
    for score in (
        ssim,
        information.mutual_information_score,
        fidelity.peak_signal_noise_ratio_db,
    ):
        with pytest.raises((InputError, TypeCheckError)):
            score(f, r)


def test_large_volumes_are_scored_by_slabs_and_score_the_same(monkeypatch):
    f, a, b = (_smooth((30, 22, 21), seed) for seed in (32, 33, 34))
    whole = float(ssim(f, a)), float(qabf(f, a, b))
    for module in (gradients, local_scores):
        monkeypatch.setattr(module, "slabs_of", lambda shape: slabs_of(shape, 2000))
    assert (float(ssim(f, a)), float(qabf(f, a, b))) == pytest.approx(whole, abs=1e-6)
    f.requires_grad_()
    (ssim(f, a) + qabf(f, a, b)).backward()
    assert f.grad is not None
