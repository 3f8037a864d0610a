"""The overlay: grey where there is no uptake, an opacity that follows it, and files that other programs read."""

import json
from pathlib import Path

import matplotlib as mpl
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from tests.fusion.phantom import pair

from crossalign.cli.main import main
from crossalign.errors import SettingError
from crossalign.fusion.overlay import blend, make_overlay, opacity_of
from crossalign.fusion.overlay_settings import OverlaySettings
from crossalign.fusion.window_settings import WindowSettings
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, read_image, write_image
from crossalign.report.overlay_planes import draw_overlay_planes, maximum_uptake

SETTINGS = st.builds(
    OverlaySettings,
    colour_map=st.sampled_from(["inferno", "magma", "viridis"]),
    opacity=st.floats(0, 1),
    onset=st.floats(0, 0.4),
    full=st.floats(0.45, 1),
)


@settings(max_examples=20)
@given(SETTINGS)
def test_the_opacity_is_0_without_uptake_and_nowhere_falls(drawn: OverlaySettings) -> None:
    uptake = np.linspace(0, 1, 301)
    alpha = opacity_of(drawn, uptake)
    assert alpha[0] == 0
    assert (alpha[uptake <= drawn.onset] == 0).all()
    assert (np.diff(alpha) >= 0).all()
    assert alpha[-1] == pytest.approx(drawn.opacity, abs=1e-6)
    assert drawn.points()[0] == (0.0, 0.0)


@settings(max_examples=20)
@given(SETTINGS, st.floats(0, 1), st.floats(0, 1))
def test_a_colour_is_the_mixture_of_the_grey_and_the_map(drawn: OverlaySettings, grey: float, uptake: float) -> None:
    found = blend(np.full((1, 1), grey, np.float32), np.full((1, 1), uptake, np.float32), drawn)[0, 0]
    alpha = opacity_of(drawn, np.array([uptake]))[0]
    level = int(np.rint(np.float32(uptake) * 255))
    colour = np.array(mpl.colormaps[drawn.colour_map](level)[:3])
    assert np.abs(found - 255 * ((1 - alpha) * grey + alpha * colour)).max() <= 1.1
    without = blend(np.full((1, 1), grey, np.float32), np.zeros((1, 1), np.float32), drawn)[0, 0]
    assert without.tolist() == [np.rint(np.float32(255) * np.float32(grey))] * 3


def test_the_volume_in_colour_lies_on_the_mris_grid_through_the_transform() -> None:
    mri, pet = pair()
    moved = Image(pet.voxels, Grid(pet.grid.shape, pet.grid.spacing_mm, (100.0, 0.0, 0.0)), pet.name)
    shift = Rigid.from_translation(torch.tensor([100.0, 0.0, 0.0], dtype=torch.float64))
    windows = WindowSettings(window_b=(0.0, 8.0))
    here, there = make_overlay(mri, pet, windows=windows), make_overlay(mri, moved, shift, windows=windows)
    assert here.grid == mri.grid
    assert here.rgb().shape == (*mri.grid.shape, 3)
    assert int((here.rgb().int() - there.rgb().int()).abs().max()) <= 1
    cold = pet.voxels <= 0
    expected = (255 * here.scaled()[0][cold]).round()
    assert torch.equal(here.rgb()[cold].float(), expected[:, None].expand(-1, 3))
    assert torch.equal(here.pet_on_fixed().voxels, pet.voxels)


def test_the_planes_pass_through_the_highest_uptake() -> None:
    mri, pet = pair()
    hot = pet.voxels.clone()
    hot[30, 10, 20] = 19.0
    overlay = make_overlay(mri, Image(hot, pet.grid), pet_unit="SUV")
    place, highest = maximum_uptake(overlay)
    assert highest == 19
    assert place == pytest.approx((40.0, 20.0, 60.0))  # 2 mm: x, y, z
    figure = draw_overlay_planes(overlay)
    text = " ".join(part.get_text() for part in figure.findobj(mpl.text.Text))
    assert "highest uptake, 19 SUV" in text
    assert "not a medical device" in text
    assert "PET (SUV)" in text
    axial = figure.subfigs[0].axes[6].images[0]  # of the PET, dark where the uptake is high
    shades = np.asarray(axial.get_array())
    left, right, bottom, top = axial.get_extent()
    assert left < right  # the patient's right, where L is low, is on the left
    assert top < bottom  # the front is up
    column = int((40 - left) / (right - left) * shades.shape[1])
    row = int((20 - top) / (bottom - top) * shades.shape[0])
    assert shades[row, column] == pytest.approx(0, abs=1e-5)
    assert int((shades < 0.05).sum()) < 0.05 * shades.size


def test_the_command_writes_a_volume_that_others_read_planes_and_a_record(tmp_path: Path) -> None:
    mri, pet = pair()
    tilted = Grid(
        mri.grid.shape, (2.0, 2.0, 2.5), (10.0, -5.0, 3.0), ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))
    )
    write_image(Image(mri.voxels, tilted), tmp_path / "mri.nii.gz")
    write_image(Image(pet.voxels, tilted), tmp_path / "pet.nii.gz")
    given = ["fuse", str(tmp_path / "mri.nii.gz"), str(tmp_path / "pet.nii.gz"), "-o", str(tmp_path / "f.nii.gz")]
    given += ["--method", "average", "--unit", "SUV", "--overlay", str(tmp_path / "o.nii.gz")]
    assert main([*given, "--uptake.colour-map", "magma", "--uptake.opacity", "0.7"]) == 0
    by_nibabel, by_itk = nib.load(tmp_path / "o.nii.gz"), sitk.ReadImage(str(tmp_path / "o.nii.gz"))
    assert int(by_nibabel.header["datatype"]) == 128  # RGB24
    settings = OverlaySettings(colour_map="magma", opacity=0.7)
    read = [read_image(tmp_path / name) for name in ("mri.nii.gz", "pet.nii.gz")]
    expected = make_overlay(read[0], read[1], settings=settings, pet_unit="SUV").rgb().numpy()
    assert np.array_equal(sitk.GetArrayFromImage(by_itk), expected)
    assert by_itk.GetOrigin() == pytest.approx(tilted.origin_mm)
    assert np.allclose(by_itk.GetDirection(), np.array(tilted.direction).ravel(), atol=1e-5)
    with Picture.open(tmp_path / "o.png") as picture:
        assert min(picture.size) > 600
    text = (tmp_path / "o.json").read_text()
    record = json.loads(text)
    assert "mri.nii" not in text
    assert record["pet"]["unit"] == "SUV"
    assert record["opacity_curve"] == [[0, 0], [0.1, 0], [0.5, 0.7], [1, 0.7]]
    assert record["highest_uptake"]["value"] == pytest.approx(float(read[1].voxels.max()))
    # A viewer that follows the record draws the same.
    grey, uptake = (
        np.clip((one.voxels.numpy() - record[key]["low"]) / (record[key]["high"] - record[key]["low"]), 0, 1)
        for one, key in zip(read, ("fixed", "pet"), strict=True)
    )
    x, y = np.array(record["opacity_curve"]).T
    alpha = np.interp(uptake, x, y)[..., None]
    colours = np.array(record["colour_table"])[np.rint(uptake * 255).astype(int), :3]
    assert np.abs(255 * (1 - alpha) * grey[..., None] + alpha * colours - expected).max() <= 1.1


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--overlay", "o.png"], "end the name in .nii.gz or .nii"),
        (["--uptake.opacity", "0.5"], "needs --overlay"),
        (["--overlay-point", "1,2,3"], "--overlay-point needs --overlay"),
        (["--overlay", "o.nii.gz", "--uptake.full", "0.05"], "--uptake.full must be more than the onset"),
        (["--overlay", "o.nii.gz", "--uptake.colour-map", "jet"], "must be one of inferno"),
    ],
)
def test_what_cannot_be_drawn_is_an_error_and_leaves_nothing(tmp_path, monkeypatch, capsys, more, expected) -> None:
    monkeypatch.chdir(tmp_path)
    for image, name in zip(pair(), ("mri.nii.gz", "pet.nii.gz"), strict=True):
        write_image(image, name)
    assert main(["fuse", "mri.nii.gz", "pet.nii.gz", "-o", "f.nii.gz", "--method", "average", *more]) == 2
    assert expected in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mri.nii.gz", "pet.nii.gz"]


def test_settings_that_are_none_are_an_error() -> None:
    with pytest.raises(SettingError, match="or less"):
        OverlaySettings(opacity=1.5)
