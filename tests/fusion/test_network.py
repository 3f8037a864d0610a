"""Fusion by a network: tiles give what the whole gives, and the shipped weights keep what each scan alone shows."""

from pathlib import Path

import pytest
import torch
from tests.fusion.phantom import blurred, head, pair

from crossalign.errors import InputError, WeightsError
from crossalign.fusion import methods as network
from crossalign.fusion.methods import PLAIN_FUSION_METHODS, NetworkFusion, _overlap, _tile_size, named_network
from crossalign.fusion.metrics.structure import qabf_score, ssim_score
from crossalign.fusion.networks.compact import CompactSettings, DCFBCompact
from crossalign.fusion.networks.model_files import (
    FusionStage,
    FusionStageSettings,
    load_fusion_stage,
    save_fusion_stage,
)
from crossalign.models.pretrained import shipped_fusion_names, shipped_fusion_path

SMALL = CompactSettings(channels=8, blocks=1, heads=2, window=2, kernel=3, context=4, hidden=4, steps=1)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def untrained() -> FusionStage:
    torch.manual_seed(0)
    return FusionStage(DCFBCompact(SMALL).eval(), FusionStageSettings("dcfb-compact", SMALL), {})


@pytest.fixture(scope="module")
def shipped() -> FusionStage:
    return load_fusion_stage(shipped_fusion_path("dcfb-compact"))


def smooth(shape: tuple[int, int, int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 2, 9, 9, 9, generator=generator)
    a, b = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0]
    return a.contiguous(), b.contiguous()


@pytest.mark.parametrize("size", [16, 64, 100, 128, 144, 160, 192, 217, 256])
@pytest.mark.parametrize("multiple", [8, 16])
def test_tiles_cover_every_axis_in_step(size: int, multiple: int) -> None:
    padded = -(-size // multiple) * multiple
    tile = _tile_size(padded, 128, multiple)
    assert tile % multiple == 0
    assert tile <= 128
    if tile < padded:
        stride = int(tile * (1 - _overlap(padded, tile, multiple)))  # as MONAI computes it
        assert stride % multiple == 0
        assert tile - stride >= 64
    else:
        assert _overlap(padded, tile, multiple) == 0


def test_tiles_give_what_the_whole_gives() -> None:
    a, b = smooth((24, 144, 90))
    stage = untrained()
    whole, tiled = (NetworkFusion(stage, tile=tile).fuse(a, b) for tile in (512, 128))
    assert float((whole - tiled).abs().max()) < 1e-3


def test_shipped_tiles_give_what_the_whole_gives(shipped: FusionStage) -> None:
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
    stage = untrained()
    assert NetworkFusion(stage).name == "dcfb-compact"
    assert NetworkFusion(stage, 1.0).name == "dcfb-compact-detail"
    assert NetworkFusion(stage, 0.5).name == "dcfb-compact-0.5"
    assert NetworkFusion(stage, 0.5).settings()["emphasis"] == "0.5"
    with pytest.raises(InputError, match="emphasis"):
        NetworkFusion(stage, 2.0)
    with pytest.raises(InputError, match="tiles"):
        NetworkFusion(stage, tile=16)


def test_networks_by_name(tmp_path: Path) -> None:
    assert shipped_fusion_names()[0] == network.DEFAULT_NETWORK
    assert named_network("dcfb-compact", "detail").emphasis == 1.0
    save_fusion_stage(untrained(), tmp_path / "mine.safetensors")
    mine = named_network(str(tmp_path / "mine.safetensors"))
    assert mine.stage.settings.compact == SMALL
    with pytest.raises(InputError, match="no shipped fusion weights"):
        named_network("unet")
    with pytest.raises(InputError, match="balanced, detail"):
        named_network("dcfb-compact", "sharp")


def test_damaged_shipped_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shipped_fusion_path("dcfb-compact")
    for name in (path.name, "SHA256SUMS"):
        (tmp_path / name).write_bytes((path.parent / name).read_bytes())
    monkeypatch.setattr(network, "shipped_fusion_path", lambda _: tmp_path / path.name)
    named_network("dcfb-compact")
    data = bytearray((tmp_path / path.name).read_bytes())
    data[-1] ^= 1
    (tmp_path / path.name).write_bytes(bytes(data))
    with pytest.raises(WeightsError, match=r"damaged \(SHA-256 .*install crossalign again"):
        named_network("dcfb-compact")
    (tmp_path / path.name).unlink()
    with pytest.raises(WeightsError, match="are missing"):
        named_network("dcfb-compact")


def scores(fused: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    return float(ssim_score(fused, a) + ssim_score(fused, b)) / 2, float(qabf_score(fused, a, b))


def test_shipped_weights_beat_average_and_wavelet(shipped: FusionStage) -> None:
    a, b = head()
    mine = scores(NetworkFusion(shipped).fuse(a, b), a, b)
    for name in ("average", "wavelet"):
        theirs = scores(PLAIN_FUSION_METHODS[name]().fuse(a, b), a, b)
        assert mine[0] > theirs[0]
        assert mine[1] > theirs[1]


HOT, HYPO, MRI = (False, 0.35, 4), (False, -0.35, 6), (True, 0.3, 2)


@pytest.mark.parametrize("emphasis", [0.0, 1.0], ids=["balanced", "detail"])
@pytest.mark.parametrize("lesion", [HOT, HYPO, MRI], ids=["hot", "hypometabolic", "mri"])
def test_lesions_survive(shipped: FusionStage, emphasis: float, lesion: tuple[bool, float, int]) -> None:
    """Planted into one scan, its contrast against the same place without it is kept by a quarter or more."""
    in_mri, change, radius = lesion
    a, b = head()
    axes = torch.meshgrid(*(torch.arange(n) for n in a.shape), indexing="ij")
    place = (22, 24, 30)
    mask = (torch.stack([(x - c) ** 2 for x, c in zip(axes, place, strict=True)]).sum(0).sqrt() < radius).float()
    planted = mask if in_mri else blurred(mask)
    with_a, with_b = (a + change * planted, b) if in_mri else (a, b + change * planted)
    method = NetworkFusion(shipped, emphasis)
    before, after = method.fuse(a, b), method.fuse(with_a.clamp(0, 1), with_b.clamp(0, 1))
    inside = mask > 0
    there = (with_a.clamp(0, 1) - a if in_mri else with_b.clamp(0, 1) - b)[inside].mean()
    kept = (after - before)[inside].mean() / there
    assert float(kept) > 0.25


def test_the_shipped_network_in_3d_beats_its_twin_in_2d(shipped: FusionStage) -> None:
    """The same layers, heads, seed and steps; both are scored in 3-D."""
    a, b = head()
    twin = load_fusion_stage(shipped_fusion_path("dcfb-compact-2d"))
    assert twin.notes["step"] == shipped.notes["step"]
    ours, theirs = (scores(NetworkFusion(stage).fuse(a, b), a, b) for stage in (shipped, twin))
    assert ours[0] > theirs[0]
    assert ours[1] > theirs[1]


def test_the_package_offers_fusion() -> None:
    import crossalign

    a, b = pair()
    result = crossalign.fuse(a, b, crossalign.named_fusion_method("average"))
    assert isinstance(result, crossalign.FusionResult)
    assert result.fused.grid == a.grid
