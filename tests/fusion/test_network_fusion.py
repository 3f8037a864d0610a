"""Fusion by a network: tiles agree with the whole, and the shipped weights preserve lesions of either scan."""

from pathlib import Path

import pytest
import torch
from tests.fusion.phantom import ball, blurred, head, pair
from tests.fusion.test_unrolled import assert_alike

from crossalign.errors import InputError, WeightsError
from crossalign.fusion.classical import Average
from crossalign.fusion.methods import (
    DEFAULT_METHOD,
    UNROLLED,
    NetworkFusion,
    UnrolledOptimiser,
    default_fusion_method_name,
    named_fusion_method,
)
from crossalign.fusion.networks.compact import DCFBCompact
from crossalign.fusion.networks.dcfb import DCFB
from crossalign.fusion.networks.model_files import FusionModel, load_fusion_model, save_fusion_model
from crossalign.fusion.networks.settings import CompactSettings, DCFBSettings, FusionStageSettings
from crossalign.fusion.result import FusionMethod
from crossalign.fusion.tiles import tile_overlap, tile_size
from crossalign.models.pretrained import shipped_path

SMALL = CompactSettings(channels=8, blocks=1, middle_blocks=1, heads=2, window=2, kernel=3, context=4, hidden=4)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def untrained() -> FusionModel:
    torch.manual_seed(0)
    return FusionModel(DCFBCompact(SMALL).eval(), FusionStageSettings("dcfb-compact", SMALL))


@pytest.fixture(scope="module")
def shipped() -> FusionModel:
    return load_fusion_model("dcfb-compact")


def smooth(shape: tuple[int, int, int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 2, 9, 9, 9, generator=generator)
    a, b = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0]
    return a.contiguous(), b.contiguous()


@pytest.mark.parametrize("size", [16, 64, 100, 128, 144, 160, 192, 217, 256])
@pytest.mark.parametrize("multiple", [8, 16])
def test_tiles_cover_every_axis_in_step(size: int, multiple: int) -> None:
    padded = -(-size // multiple) * multiple
    tile = tile_size(padded, 128, multiple)
    assert tile % multiple == 0
    assert tile <= 128
    if tile < padded:
        stride = int(tile * (1 - tile_overlap(padded, tile, multiple)))  # as MONAI computes it
        assert stride % multiple == 0
        assert tile - stride >= 64
    else:
        assert tile_overlap(padded, tile, multiple) == 0


def test_tiles_agree_with_the_whole() -> None:
    a, b = smooth((24, 144, 90))
    model = untrained()
    whole, tiled = (NetworkFusion(model, tile=tile).fuse(a, b) for tile in (512, 128))
    assert_alike(tiled, whole)


def test_shipped_tiles_agree_with_the_whole(shipped: FusionModel) -> None:
    a, b = smooth((16, 144, 100), seed=1)
    whole, tiled = (NetworkFusion(shipped, tile=tile).fuse(a, b) for tile in (512, 128))
    assert float((whole - tiled).abs().max()) < 1e-3


def test_a_fusion_is_one_volume_in_range_and_repeats() -> None:
    a, b = head()
    method = NetworkFusion(untrained())
    fused = method.fuse(a, b)
    assert fused.shape == a.shape
    assert fused.dtype == torch.float32
    assert 0 <= float(fused.min()) <= float(fused.max()) <= 1
    assert torch.equal(fused, method.fuse(a, b))


def test_names_and_settings() -> None:
    model = untrained()
    assert NetworkFusion(model).name == "dcfb-compact"
    assert NetworkFusion(model, 0.0).name == "dcfb-compact-balanced"
    assert NetworkFusion(model, 1.0).name == "dcfb-compact-detail"
    assert NetworkFusion(model, 0.5).name == "dcfb-compact-0.5"
    assert NetworkFusion(model, 0.5).settings()["detail"] == "0.5"
    with pytest.raises(InputError, match="'detail' runs from"):
        NetworkFusion(model, 2.0)
    with pytest.raises(InputError, match="tiles"):
        NetworkFusion(model, tile=16)


def test_the_papers_network_has_no_detail() -> None:
    sizes = DCFBSettings(channels=8, depths=(1, 1), heads=(2, 2))
    torch.manual_seed(0)
    method = NetworkFusion(FusionModel(DCFB(sizes).eval(), FusionStageSettings("dcfb", dcfb=sizes)), label="network")
    a, b = smooth((16, 16, 16))
    assert method.for_pair(a, b) is method
    assert "detail" not in method.settings()
    assert torch.equal(method.fuse(a, b), method.fuse(a, b))


def test_networks_by_name(tmp_path: Path) -> None:
    assert default_fusion_method_name() == DEFAULT_METHOD == "dcfb-compact"
    shipped = named_fusion_method("dcfb-compact", "detail")
    assert isinstance(shipped, NetworkFusion)
    assert shipped.detail == 1.0
    by_name = [named_fusion_method("dcfb-compact", name) for name in (None, "auto", "balanced")]
    assert [one.detail for one in by_name if isinstance(one, NetworkFusion)] == [None, None, 0]
    save_fusion_model(untrained(), tmp_path / "mine.safetensors")
    mine = named_fusion_method(str(tmp_path / "mine.safetensors"))
    assert isinstance(mine, NetworkFusion)
    assert mine.name == "network"
    assert mine.model.settings.compact == SMALL
    with pytest.raises(InputError, match="unknown fusion method 'unet'"):
        named_fusion_method("unet")
    for wrong in ("sharp", ""):
        with pytest.raises(InputError, match="auto, balanced, detail"):
            named_fusion_method("dcfb-compact", wrong)


def test_damaged_weights_are_an_error(tmp_path: Path) -> None:
    source = shipped_path("dcfb-compact")
    assert source is not None
    data = bytearray(source.read_bytes())
    data[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(bytes(data))
    with pytest.raises(WeightsError, match=r"damaged\.safetensors: .*SHA-256"):
        named_fusion_method(str(tmp_path / "damaged.safetensors"))
    with pytest.raises(WeightsError, match="no such weight file"):
        named_fusion_method(str(tmp_path / "absent.safetensors"))


def test_shipped_weights_keep_a_hot_lesion_above_what_is_around_it(shipped: FusionModel) -> None:
    """It lies in white matter, which is bright in the MRI: the average and the optimiser from it lose its lead.

    Balanced, a part of the lead is kept; with emphasis on detail all of it.
    """
    a, b = head()
    lesion = ball((22, 24, 23), 4.0)
    around = ball((22, 24, 23), 9.0) & ~ball((22, 24, 23), 5.5)
    hot = (b + 0.6 * blurred(lesion.float())).clamp(0, 1)
    dark = torch.where(lesion, a - 0.45, a).clamp(0, 1)  # and dark in the MRI, as a sarcoma in fat

    def lead(method: FusionMethod) -> float:
        above, all_of_it = (
            float((volume[lesion][:, None] > volume[around][None]).float().mean()) - 0.5
            for volume in (method.fuse(dark, hot), hot)
        )
        return above / all_of_it

    assert max(lead(Average()), lead(UnrolledOptimiser(UNROLLED))) < 0
    assert lead(NetworkFusion(shipped, 0.0)) > 0.2
    assert lead(NetworkFusion(shipped, 1.0)) > 0.9


HOT, HYPOMETABOLIC, MRI = (False, 0.35, 4), (False, -0.35, 6), (True, 0.3, 2)


@pytest.mark.parametrize(
    ("lesion", "detail"),
    [(HOT, 0.0), (HOT, 1.0), (HYPOMETABOLIC, 0.0), (HYPOMETABOLIC, 1.0), (MRI, 1.0)],
    ids=["hot", "hot-detail", "hypometabolic", "hypometabolic-detail", "mri-detail"],
)
def test_lesions_are_preserved(shipped: FusionModel, detail: float, lesion: tuple[bool, float, int]) -> None:
    """A quarter and more of the contrast of a lesion in one scan, compared with the fusion without it.

    Balanced, the network shows little of the MRI, and no small lesion that is in the MRI alone (its card says so).
    """
    in_mri, change, radius = lesion
    a, b = head()
    axes = torch.meshgrid(*(torch.arange(n) for n in a.shape), indexing="ij")
    center = (22, 24, 30)
    mask = (torch.stack([(x - c) ** 2 for x, c in zip(axes, center, strict=True)]).sum(0).sqrt() < radius).float()
    inserted = change * (mask if in_mri else blurred(mask))
    with_a, with_b = ((a + inserted).clamp(0, 1), b) if in_mri else (a, (b + inserted).clamp(0, 1))
    method = NetworkFusion(shipped, detail)
    change_in_fused = method.fuse(with_a, with_b) - method.fuse(a, b)
    inside = mask > 0
    contrast = (with_a - a if in_mri else with_b - b)[inside].mean()
    assert float(change_in_fused[inside].mean() / contrast) > 0.25


def test_the_package_offers_fusion() -> None:
    import crossalign

    a, b = pair()
    result = crossalign.fuse(a, b, crossalign.named_fusion_method("average"))
    assert isinstance(result, crossalign.FusionResult)
    assert result.fused.grid == a.grid
