"""Fusion datasets, from simulation, manifest and file, the patches cut from them, and the command that trains."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.fusion.test_simulation import maps
from tests.fusion.test_training import dataset

from crossalign.cli.main import main
from crossalign.errors import InputError, ManifestError
from crossalign.fusion.networks.model_files import load_fusion_model
from crossalign.fusion.simulation.anatomy import mni152_maps
from crossalign.fusion.training import preparation
from crossalign.fusion.training.dataset import FusionDataset, draw_patches, insert_lesions
from crossalign.fusion.training.preparation import fusion_datasets_from_manifest
from crossalign.fusion.training.settings import FusionAugmentation
from crossalign.geometry import Grid
from crossalign.images import Image, write_image

pytestmark = pytest.mark.usefixtures("one_thread")

CUBE = (16, 16, 16)


def test_lesions_change_one_scan_inside_their_mask() -> None:
    generator = torch.Generator().manual_seed(2)
    patches = draw_patches(dataset(), [0, 1, 2] * 4, (20, 20, 20), None, generator)
    lesions = insert_lesions(patches, generator).lesions
    assert lesions is not None
    changes = [(lesions.a - patches.a).abs(), (lesions.b - patches.b).abs()]
    in_mri, in_pet = (change.flatten(1).amax(1) > 0 for change in changes)
    assert not bool((in_mri & in_pet).any())
    assert bool(in_mri.any())
    assert bool(in_pet.any())
    assert float(((changes[0] + changes[1]) * (lesions.mask < 0.01)).max()) < 0.01
    assert 0 <= float(lesions.a.min()) <= float(lesions.a.max()) <= 1


def test_both_volumes_of_a_patch_move_together() -> None:
    """Two copies of one volume, rotated and mirrored, stay two copies."""
    volume = dataset(1, 4).mri[0]
    twin = FusionDataset((volume,), (volume,))
    moves = FusionAugmentation(rotation_rad=0.2, rotated_fraction=1.0, gamma=0.0, noise=0.0, gain=0.0, mirror=True)
    for seed in range(4):
        patches = draw_patches(twin, [0], CUBE, moves, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(patches.a, patches.b)


def test_contrast_and_noise_change_the_mri_alone() -> None:
    volume = dataset(1, 4).mri[0]
    twin = FusionDataset((volume,), (volume,))
    changes = FusionAugmentation(0.0, 0.0, 0.3, 0.05, 0.0, False)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    plain = draw_patches(twin, [0], CUBE, None, generators[0])
    varied = draw_patches(twin, [0], CUBE, changes, generators[1])
    torch.testing.assert_close(plain.b, varied.b)
    assert not torch.allclose(plain.a, varied.a)
    assert bool((varied.a[plain.a <= 1e-4] <= 1e-4).all())


def test_a_short_volume_is_extended() -> None:
    volume = torch.rand(10, 20, 30)
    patches = draw_patches(FusionDataset((volume,), (volume,)), [0], CUBE, None, torch.Generator().manual_seed(0))
    assert patches.a.shape == (1, 1, *CUBE)
    torch.testing.assert_close(patches.a[:, :, 9], patches.a[:, :, 15])


def test_one_seed_gives_one_dataset() -> None:
    first, again = dataset(2, 3), dataset(2, 3)
    assert all(torch.equal(a, b) for a, b in zip(first.mri + first.pet, again.mri + again.pet, strict=True))


def test_a_dataset_is_read_as_it_was_written(tmp_path: Path) -> None:
    first = dataset(2, 3)
    first.save(tmp_path / "pairs.safetensors")
    found = FusionDataset.load(tmp_path / "pairs.safetensors")
    assert len(found) == 2
    assert all(torch.equal(a, b) for a, b in zip(first.mri + first.pet, found.mri + found.pet, strict=True))


def test_other_files_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "no.safetensors").write_text("x")
    with pytest.raises(InputError, match="not a dataset"):
        FusionDataset.load(tmp_path / "no.safetensors")
    for odd in ({"mri/x": torch.zeros(2, 2, 2)}, {"mri/00000": torch.zeros(2)}, {"luck": torch.zeros(2, 2, 2)}):
        save_file(odd, tmp_path / "odd.safetensors")
        with pytest.raises(InputError, match="not a dataset of fusion pairs: it holds"):
            FusionDataset.load(tmp_path / "odd.safetensors")


def test_an_invalid_dataset_is_an_error() -> None:
    with pytest.raises(InputError, match="no pairs"):
        FusionDataset((), ())
    with pytest.raises(InputError, match="one grid"):
        FusionDataset((torch.zeros(2, 2, 2),), (torch.zeros(2, 2, 3),))


def manifest(folder: Path, splits: tuple[str, ...]) -> Path:
    """Write pairs of which the PET has its own, coarser grid."""
    rows = ["case,mri,pet,split"]
    generator = torch.Generator().manual_seed(0)
    for number, split in enumerate(splits):
        for kind, shape, step in (("mri", (20, 22, 24), 2.0), ("pet", (14, 15, 16), 3.0)):
            grid = Grid.centered((0.0, 0.0, 0.0), shape, (step, step, step))
            write_image(Image(torch.rand(shape, generator=generator), grid, kind), folder / f"{kind}{number}.nii.gz")
        rows.append(f"c{number},mri{number}.nii.gz,pet{number}.nii.gz,{split}")
    path = folder / "pairs.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_manifest_becomes_datasets_on_the_mris_grid(tmp_path: Path) -> None:
    train, val = fusion_datasets_from_manifest(manifest(tmp_path, ("train", "val")))
    assert train.mri[0].shape == train.pet[0].shape == (20, 22, 24)
    assert 0 <= float(val.pet[0].min()) <= float(val.pet[0].max()) <= 1


def test_a_manifest_needs_both_splits(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="'val'"):
        fusion_datasets_from_manifest(manifest(tmp_path, ("train", "train")))


def test_the_template_comes_with_nilearn() -> None:
    found = mni152_maps()
    assert found.t1.shape == (189, 233, 197)
    assert 0.9 < float(found.white.max()) <= 1


ONE_STEP = ("--steps", "1", "--patch", "16", "--val-every", "1")


def test_the_command_trains_from_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = manifest(tmp_path, ("train", "val"))
    assert main(["train-fusion", str(path), "-o", str(tmp_path / "run"), *ONE_STEP]) == 0
    assert "finished" in capsys.readouterr().out
    assert (tmp_path / "run" / "best.safetensors").is_file()
    assert main(["train-fusion", "-o", str(tmp_path / "other")]) == 2
    assert "MANIFEST" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    assert main(["train-fusion", str(path), "-o", str(tmp_path / "full")]) == 2


def test_the_command_trains_from_simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "mni152_maps", maps)
    monkeypatch.setattr(preparation, "SIMULATED_SHAPE", (16, 16, 16))
    assert main(["train-fusion", "--simulate", "1", "-o", str(tmp_path / "run"), "--steps", "1", "--patch", "16"]) == 0


def test_settings_of_the_loss_can_be_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = manifest(tmp_path, ("train", "val"))
    words = ["train-fusion", str(path), "--stage.network", "dcfb-compact-2d", *ONE_STEP]
    run = tmp_path / "run"
    assert main([*words, "-o", str(run), "--qabf-weights", "0.1,0.3", "--lesion-weight", "0.2"]) == 0
    saved = json.loads((run / "settings.json").read_text())
    assert saved["qabf_weights"] == [0.1, 0.3]
    assert saved["lesion_weight"] == 0.2
    assert load_fusion_model(run / "best.safetensors").settings.network == "dcfb-compact-2d"
    assert main([*words, "-o", str(tmp_path / "no"), "--qabf-weights", "0.3,0.1"]) == 2
    assert "run from over 0 upwards" in capsys.readouterr().err
