"""Supervised training of fusion: outlines from file to patch, their loss, and that it is learned."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.fusion.test_training import SETTINGS, blob, dataset
from tests.fusion.test_training_dataset import CUBE, ONE_STEP, manifest

from crossalign.cli.main import main
from crossalign.errors import ImageError, InputError
from crossalign.fusion.networks.model_files import load_fusion_model
from crossalign.fusion.training.dataset import FusionDataset, FusionPatches, draw_patches
from crossalign.fusion.training.losses import FEW, MARGIN, draw_steps, outline_loss
from crossalign.fusion.training.preparation import fusion_datasets_from_manifest, fusion_manifest_record
from crossalign.fusion.training.settings import FusionAugmentation
from crossalign.fusion.training.task import FusionTask
from crossalign.geometry import Grid
from crossalign.images import Image, write_image
from crossalign.training.engine import run_task

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (24, 32, 32)
SUPERVISED = replace(SETTINGS, outline_weight=4.0)


def outlined(count: int = 2, seed: int = 1) -> FusionDataset:
    """Heads with a ball that is darker in the MRI, and takes up a little more than what was there."""
    heads = dataset(count, seed)
    ball = blob((24, 28, 24), (12, 14, 12), 6.0) > 0
    mri, pet = (
        tuple((v * (1 + change * ball.half())).clamp(max=1) for v in volumes)
        for volumes, change in ((heads.mri, -0.5), (heads.pet, 0.3))
    )
    return FusionDataset(mri, pet, (ball,) * count)


def test_the_loss_of_outlines_is_what_they_lack_in_brightness() -> None:
    ball = blob(SHAPE, (12, 16, 16), 7.0)[None, None]
    steps = draw_steps(SHAPE, torch.Generator().manual_seed(1))
    above, level, below = (float(outline_loss(0.4 + rise * ball, ball, steps)) for rise in (MARGIN, 0.0, -0.1))
    assert above == pytest.approx(0, abs=1e-9)
    # All pairs across the border lack alike, so that only FEW makes the loss differ from what each of them lacks.
    assert below / level == pytest.approx(((MARGIN + 0.1) / MARGIN) ** 2, rel=1e-4)
    assert MARGIN / 2 < level < MARGIN


def test_the_loss_of_outlines_agrees_with_its_formula() -> None:
    ball = blob(SHAPE, (12, 16, 16), 7.0)[None, None]
    fused = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(2))
    across, along = ball[..., 4:] - ball[..., :-4], fused[..., 4:] - fused[..., :-4]
    lack = (MARGIN - along * across)[across != 0].clamp(min=0) ** 2 / MARGIN
    expected = float(lack.sum()) / (len(lack) + FEW * across.numel())
    assert float(outline_loss(fused, ball, [(0, 0, 4)])) == pytest.approx(expected, rel=1e-5)


def test_patches_without_an_outline_lose_nothing() -> None:
    steps = draw_steps(SHAPE, torch.Generator().manual_seed(1))
    fused = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(2))
    assert float(outline_loss(fused, None, steps)) == 0
    assert float(outline_loss(fused, torch.zeros_like(fused), steps)) == 0


def test_an_outline_moves_with_its_volumes() -> None:
    """A ball that is its own outline stays so, rotated and mirrored."""
    ball = blob((24, 28, 24), (10, 16, 11), 6.0) > 0
    twin = FusionDataset((ball.half(),), (ball.half(),), (ball,))
    moves = FusionAugmentation(rotation_rad=0.2, rotated_fraction=1.0, gamma=0.3, noise=0.0, gain=0.3, mirror=True)
    for seed in range(4):
        patches = draw_patches(twin, [0], CUBE, moves, torch.Generator().manual_seed(seed))
        outline = outline_of(patches)
        assert set(outline.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(outline, (patches.b > patches.b.max() / 2).float())


def outline_of(patches: FusionPatches) -> torch.Tensor:
    assert patches.outline is not None
    return patches.outline


def test_outlines_change_nothing_that_is_drawn() -> None:
    pairs = outlined()
    partly = FusionDataset(pairs.mri, pairs.pet, (pairs.outlines[0], None))
    drawn = [
        draw_patches(one, [0, 1, 0], CUBE, FusionAugmentation(), torch.Generator().manual_seed(3))
        for one in (partly, partly.without_outlines())
    ]
    for name in ("a", "b", "detail"):
        assert torch.equal(getattr(drawn[0], name), getattr(drawn[1], name))
    assert drawn[1].outline is None
    assert outline_of(drawn[0]).flatten(1).amax(1).tolist() == [1, 0, 1]


def test_a_dataset_with_outlines_is_read_as_it_was_written(tmp_path: Path) -> None:
    pairs = outlined(3)
    first = FusionDataset(pairs.mri, pairs.pet, (None, pairs.outlines[1], None)).to("cpu")
    first.save(tmp_path / "pairs.safetensors")
    found = FusionDataset.load(tmp_path / "pairs.safetensors")
    assert first.tensors().keys() == found.tensors().keys()
    assert all(torch.equal(tensor, found.tensors()[name]) for name, tensor in first.tensors().items())
    assert found.outlines[0] is found.outlines[2] is None


def test_invalid_outlines_are_an_error(tmp_path: Path) -> None:
    scan, outline = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2, dtype=torch.bool)
    for outlines in ((outline, outline), (torch.zeros(2, 2, 3, dtype=torch.bool),)):
        with pytest.raises(InputError, match="as many outlines as pairs"):
            FusionDataset((scan,), (scan,), outlines)
    for odd in ({"outline/00000": scan}, {"outline/00001": outline}):
        save_file({"mri/00000": scan.clone(), "pet/00000": scan.clone(), **odd}, tmp_path / "odd.safetensors")
        with pytest.raises(InputError, match="it holds 'outline"):
            FusionDataset.load(tmp_path / "odd.safetensors")


def test_training_on_outlines_needs_them() -> None:
    pairs = outlined()
    with pytest.raises(InputError, match=r"--outline-weight\) is over 0 and no pair .* column 'mask'"):
        FusionTask(pairs.without_outlines(), pairs, SUPERVISED)
    with pytest.raises(InputError, match="no outline takes part"):
        replace(SUPERVISED, loss="paper")


def test_without_a_weight_outlines_take_no_part() -> None:
    pairs = outlined()
    with_outlines, without = (FusionTask(one, one, SETTINGS) for one in (pairs, pairs.without_outlines()))
    assert with_outlines.data() == without.data()
    network = without.fresh_model().eval()
    assert torch.equal(with_outlines.loss(network, 1), without.loss(network, 1))
    assert FusionTask(pairs, pairs, SUPERVISED).baseline() > with_outlines.baseline()


def test_a_run_begun_before_there_was_supervision_goes_on() -> None:
    pairs = outlined()
    task = FusionTask(pairs, pairs, SETTINGS)
    old = json.loads(json.dumps(task.settings()))
    del old["outline_weight"]
    assert json.loads(json.dumps(task.renamed(old))) == json.loads(json.dumps(task.settings()))


def test_a_small_supervised_training_lowers_its_loss(tmp_path: Path) -> None:
    pairs = outlined()
    stage = replace(SETTINGS.stage, compact=replace(SETTINGS.stage.compact, score_steps=3))
    run = replace(SUPERVISED, stage=stage, salience_weight=0.0, steps=20, val_every=10, rate=1e-2, ema_decay=0.8)
    task = FusionTask(pairs, pairs, run)
    untrained = task.fresh_model().eval()
    with torch.no_grad():
        before = task.validate(untrained)
    result = run_task(task, tmp_path / "run")
    assert result.measure < 0.8 * before
    assert lack_of(load_fusion_model(result.best).network, pairs) < 0.8 * lack_of(untrained, pairs)


@torch.no_grad()
def lack_of(network: torch.nn.Module, pairs: FusionDataset) -> float:
    patches = draw_patches(pairs, [0, 1] * 4, CUBE, None, torch.Generator().manual_seed(1))
    steps = draw_steps(CUBE, torch.Generator().manual_seed(1))
    return float(outline_loss(network(patches.a, patches.b, torch.zeros(8)), patches.outline, steps))


def with_masks(folder: Path, center_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Path:
    """Write a manifest of which the training pair has a mask, on a grid of its own; its labels are 0 and 2."""
    path = manifest(folder, ("train", "val"))
    ball = Image(2 * blob((12, 12, 12), (6, 6, 6), 4.0), Grid.centered(center_mm, (12, 12, 12), (2.5,) * 3), "mask")
    write_image(ball, folder / "mask.nii.gz")
    head, first, second = path.read_text().splitlines()
    path.write_text(f"{head},mask\n{first},mask.nii.gz\n{second},\n")
    return path


def test_a_mask_is_read_onto_the_mris_grid_where_training_is_supervised(tmp_path: Path) -> None:
    path = with_masks(tmp_path)
    train, val = fusion_datasets_from_manifest(path, outlined=True)
    outline = train.outlines[0]
    assert outline is not None
    assert outline.dtype == torch.bool
    assert outline.shape == (20, 22, 24)
    inside = int(outline.sum()) * 2.0**3 / (4 / 3 * torch.pi * (4.0 * 2.5) ** 3)
    assert 0.9 < inside < 1.1
    assert not val.has_outlines()
    assert not fusion_datasets_from_manifest(path)[0].has_outlines()
    assert "mask" in json.dumps(fusion_manifest_record(path, outlined=True))
    assert "mask" not in json.dumps(fusion_manifest_record(path))


def test_a_mask_beside_the_mri_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nothing of the lesion lies in the MRI"):
        fusion_datasets_from_manifest(with_masks(tmp_path, (500.0, 0.0, 0.0)), outlined=True)


def test_the_command_trains_on_outlines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train-fusion", str(with_masks(tmp_path)), *ONE_STEP, "--outline-weight", "2"]
    assert main([*words, "-o", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["outline_weight"] == 2
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(pairs.read_text().replace("mask.nii.gz", ""))
    assert main([*words, "-o", str(tmp_path / "no")]) == 2
    assert "no pair to train on has an outline" in capsys.readouterr().err
    assert main([*words, "--loss", "paper", "-o", str(tmp_path / "no")]) == 2
