"""Checkpoints of the fusion paper's authors: layers that both networks have compute the same."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tests.fusion.published_networks import original_fusion_state
from torch import Tensor

from crossalign.errors import WeightsError
from crossalign.fusion.networks.dcfb import DCFB
from crossalign.fusion.networks.published import OriginalFusion, load_original_fusion_checkpoint, original_source
from crossalign.fusion.networks.settings import DCFBSettings

SMALL = DCFBSettings(channels=32, depths=(1, 2), heads=(2, 4))
STATE = original_fusion_state(SMALL)


def load(state: dict[str, Tensor], path: Path) -> OriginalFusion:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return load_original_fusion_checkpoint(path, SMALL)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> OriginalFusion:
    return load(STATE, tmp_path_factory.mktemp("original") / "fusion.safetensors")


def volume(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def linear(name: str, x: Tensor) -> Tensor:
    """Their linear layer on channels last."""
    return F.linear(x.movedim(1, -1), STATE[f"{name}.weight"], STATE[f"{name}.bias"]).movedim(-1, 1)


def normalised(name: str, x: Tensor) -> Tensor:
    x = x.movedim(1, -1)
    return F.layer_norm(x, x.shape[-1:], STATE[f"{name}.weight"], STATE[f"{name}.bias"]).movedim(-1, 1)


@torch.no_grad()
def test_layers_of_both_compute_the_same(loaded: OriginalFusion) -> None:
    model = loaded.model
    x, wide = volume(1, 32, 4, 4, 4), volume(1, 64, 4, 4, 4)
    down, up = "swin.layers.0.downsample.down_conv", "swin.up_layers.0.downsample.up_conv"
    merged = normalised(
        "swin.layers.0.downsample.norm", F.conv3d(x, STATE[f"{down}.weight"], STATE[f"{down}.bias"], stride=2)
    )
    torch.testing.assert_close(model.merges[0](x), merged)
    expanded = F.conv_transpose3d(wide, STATE[f"{up}.weight"], STATE[f"{up}.bias"], stride=2)
    torch.testing.assert_close(model.expands[0](wide), normalised("swin.up_layers.0.downsample.norm", expanded))
    both = torch.cat((x, x + 1), dim=1)
    torch.testing.assert_close(model.skips[0](both), linear("swin.concat_back_dim.1", both), atol=1e-4, rtol=1e-4)
    block, name = model.get_submodule("decoder.1.blocks.0"), "swin.up_layers.1.blocks.0"
    attended, branch = x, x + 1
    torch.testing.assert_close(  # theirs has the convolution's branch first, ours the attention's
        block.get_submodule("blend")(torch.cat((attended, branch), dim=1)),
        linear(f"{name}.proj", torch.cat((branch, attended), dim=1)),
        atol=1e-4,
        rtol=1e-4,
    )
    hidden = F.gelu(linear(f"{name}.mlp.fc1", normalised(f"{name}.norm1", x)))
    torch.testing.assert_close(block.get_submodule("mlp")(x), linear(f"{name}.mlp.fc2", hidden), atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_used_unused_and_fresh_names_are_listed(loaded: OriginalFusion) -> None:
    assert sorted(loaded.used + loaded.unused) == sorted(STATE)
    assert "swin.layers.1.blocks.1.cross_attn.q.weight" in loaded.used
    assert {"swin.layers.0.blocks.0.cross_attn.proj.weight", "swin.concat_back_dim.0.weight"} <= set(loaded.unused)
    assert "swin.layers.0.blocks.0.dwconv3x3.1.running_mean" in loaded.unused
    kinds = {name.split(".blocks.0.")[-1].split(".")[0] for name in loaded.fresh if ".blocks.0." in name}
    assert kinds == {"offsets", "convolution", "attention"}
    ours = loaded.model.state_dict()
    assert all(float(ours[name].abs().max()) == 0 for name in loaded.fresh if name.endswith("position"))
    fused = loaded.model(volume(1, 1, 16, 16, 16), volume(1, 1, 16, 16, 16))
    assert not loaded.model.training
    assert bool(fused.isfinite().all())


@torch.no_grad()
def test_files_prefixes_and_seeds(loaded: OriginalFusion, tmp_path: Path) -> None:
    wrapped = {"state_dict": {f"module.{name}": value for name, value in STATE.items()}}
    torch.save(wrapped, tmp_path / "fusion.pth")
    again = load_original_fusion_checkpoint(tmp_path / "fusion.pth", SMALL)
    theirs, mine = loaded.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(theirs[name], mine[name]) for name in theirs)
    other = load_original_fusion_checkpoint(tmp_path / "fusion.pth", SMALL, seed=1).model.state_dict()
    assert any(not torch.equal(theirs[name], other[name]) for name in loaded.fresh)
    assert all(torch.equal(theirs[name], other[name]) for name in theirs if name not in loaded.fresh)


def test_other_files_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"more\.pth: holds 'fc1\.weight', which is no layer of DC2Fusion"):
        load({**STATE, "fc1.weight": torch.zeros(2)}, tmp_path / "more.pth")
    with pytest.raises(WeightsError, match=r"holds 'swin\.layers\.0\.blocks\.0\.norm3\.weight'"):
        load({**STATE, "swin.layers.0.blocks.0.norm3.weight": torch.zeros(2)}, tmp_path / "norm.pth")
    less = {name: value for name, value in STATE.items() if "mlp.fc2" not in name}
    with pytest.raises(WeightsError, match=r"less\.pth: lacks what would become decoder\.0\.blocks\.0\.mlp\.3"):
        load(less, tmp_path / "less.pth")
    with pytest.raises(WeightsError, match=r"'out_conv\.weight' has shape \(2, 3\), expected \(2, 16, 3, 3, 3\)"):
        load({**STATE, "out_conv.weight": torch.zeros(2, 3)}, tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match=r"holds 'swin\.layers\.7\.blocks.*of this size"):
        load({**STATE, "swin.layers.7.blocks.0.norm1.weight": torch.zeros(2)}, tmp_path / "deep.pth")
    with pytest.raises(WeightsError, match="no such checkpoint"):
        load_original_fusion_checkpoint(tmp_path / "nothing.pth")


def test_the_papers_size_fits() -> None:
    """Names and shapes of every layer that both have, at the paper's size: 4 levels, 24 blocks."""
    theirs = original_fusion_state(DCFBSettings())
    with torch.device("meta"):
        ours = DCFB().state_dict()
    sources = {name: source for name in ours if (source := original_source(name)) is not None}
    assert all(convert(theirs[source]).shape == ours[name].shape for name, (source, convert) in sources.items())
    fresh = {name.split(".blocks.")[-1].partition(".")[2].partition(".")[0] for name in set(ours) - set(sources)}
    assert fresh - {"offsets", "convolution", "attention"} == {"norm"}  # of the embedding
