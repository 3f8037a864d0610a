"""Windows: what readers of each modality choose, zero stays zero, saturated voxels are counted, values come back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fusion.phantom import pair, write

from crossalign.errors import ImageError, InputError, SettingError
from crossalign.fusion import Window, WindowSettings, apply_window, default_window, find_scaling, fuse
from crossalign.fusion.classical import Average
from crossalign.fusion.fused_files import read_scalings
from crossalign.fusion.windows import recognise, scaling_of
from crossalign.geometry import Grid
from crossalign.images import Image, read_image


def _image(values: np.ndarray | torch.Tensor, unit: str = "", modality: str = "") -> Image:
    voxels = torch.as_tensor(values, dtype=torch.float32)
    z, y, x = voxels.shape
    return Image(voxels, Grid((z, y, x), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), "scan.nii.gz", unit, modality=modality)


def _uptake(top: float) -> np.ndarray:
    return np.random.default_rng(3).random((16, 18, 20)) ** 4 * top


@pytest.mark.parametrize("top", [0.8, 3.0, 5.9, 20.0])
def test_a_pet_in_suv_is_windowed_from_0_to_6_or_its_percentile(top: float) -> None:
    image = _image(_uptake(top), "SUV")
    window = default_window(image, "pet")
    assert window.low == 0
    assert window.high == pytest.approx(max(6.0, np.percentile(image.voxels.numpy(), 99.9)), rel=1e-6)


@given(st.floats(-3, 3), st.floats(0.1, 9), st.integers(0, 100))
def test_a_window_saturates_and_counts(low: float, width: float, seed: int) -> None:
    values = np.random.default_rng(seed).normal(2, 3, (9, 10, 11)).astype(np.float32)
    window = Window(low, low + width)
    scaling = find_scaling(_image(values), "other", window)
    scaled = apply_window(_image(values), window).voxels.numpy()
    assert scaling.saturated == np.count_nonzero(values > np.float32(window.high))
    assert scaling.saturated_fraction == pytest.approx(scaling.saturated / values.size)
    assert (scaled[values > window.high] == 1).all()
    assert (scaled[values <= low] == 0).all()
    inside = (values > low) & (values < window.high)
    assert np.allclose(scaled[inside], (values[inside] - low) / width, atol=1e-5)


def test_zero_uptake_stays_zero_whatever_the_noise_below_it() -> None:
    values = _uptake(8.0) - 0.2
    values[:4] = 0
    result = find_scaling(_image(values, "SUV"), "pet")
    scaled = result.apply(_image(values).voxels)
    assert result.low == 0
    assert float(scaled[:4].max()) == 0
    assert float(scaled[torch.as_tensor(values) <= 0].max()) == 0


def test_an_mr_is_windowed_by_its_body_however_much_air_is_around_it() -> None:
    body = np.random.default_rng(1).normal(500, 60, (12, 20, 20))
    tops = []
    for air in (4, 30):
        values = np.abs(np.random.default_rng(2).normal(0, 5, (12 + air, 20, 20)))
        values[:12] = body
        tops.append(default_window(_image(values), "mr"))
    assert tops[0].high == pytest.approx(tops[1].high, rel=0.01)
    assert tops[0].high == pytest.approx(np.percentile(body, 99.5), rel=0.02)
    assert abs(tops[1].low) < 5


def test_a_ct_is_windowed_in_hounsfield_units() -> None:
    values = np.random.default_rng(1).normal(-990, 10, (12, 20, 20))
    values[3:9, 5:15, 5:15] = 40
    found = recognise(_image(values), "a")
    assert (found.modality, found.unit) == ("ct", "HU")
    assert "scan.nii.gz is taken for a CT" in found.notes[0]
    assert default_window(_image(values), "ct") == Window(-160.0, 240.0, "HU")
    assert find_scaling(_image(values), "ct").apply(_image(values).voxels)[5, 10, 10] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("unit", "code", "given_as", "expected"),
    [
        ("", "", None, ("pet", "SUV", "order")),
        ("", "", "spect", ("spect", "", "given")),
        ("", "MR", None, ("mr", "", "DICOM header")),
        ("SUV", "PT", None, ("pet", "SUV", "DICOM header")),
        ("SUVbw", "", None, ("pet", "SUVbw", "unit")),
        ("SUVR", "", None, ("pet", "SUVR", "order")),
        ("HU", "", None, ("ct", "HU", "unit")),
    ],
)
def test_the_modality_is_given_or_said_by_the_file_or_by_the_order(unit, code, given_as, expected) -> None:
    found = recognise(_image(_uptake(9.0), unit, code), "b", given_as)
    assert (found.modality, found.unit, found.source) == expected
    assert bool(found.notes) == (expected == ("pet", "SUV", "order"))  # a guess, and only a guess, is said


@pytest.mark.parametrize("top", [1.0, 4000.0])
def test_a_pet_of_unknown_unit_out_of_the_range_of_suv_ends_at_its_percentile(top: float) -> None:
    image = _image(_uptake(top))
    assert recognise(image, "b").unit == ""
    assert default_window(image, "pet").high == pytest.approx(np.percentile(image.voxels.numpy(), 99.9))


def test_the_windows_of_a_json_file_give_the_same_volume(tmp_path: Path) -> None:
    mri, pet = pair()
    first = fuse(mri, pet, Average(), windows=WindowSettings(window_b=(0.0, 3.3)))
    write(first, tmp_path / "fused.nii.gz")
    a, b = read_scalings(tmp_path / "fused.nii.gz")
    assert (b.low, b.high, b.source) == (0.0, 3.3, "given")
    assert (a.modality, b.modality) == ("mr", "pet")
    assert b.saturated == int((pet.voxels > 3.3).sum()) > 0
    again = fuse(mri, pet, Average(), windows=WindowSettings(window_a=(a.low, a.high), window_b=(b.low, b.high)))
    assert torch.equal(again.fused.voxels, first.fused.voxels)


def test_saturation_and_guesses_are_noted() -> None:
    mri, pet = pair()
    result = fuse(mri, pet, Average())
    notes = " ".join(result.notes)
    assert "taken for SUV" in notes
    assert f"{result.b_scaling.saturated} voxels" in notes
    told = fuse(mri, pet, Average(), b_unit="SUV")
    assert "taken for SUV" not in " ".join(told.notes)
    assert told.b_scaling.high == result.b_scaling.high


@pytest.mark.parametrize("window", [(3.0, 3.0), (4.0, 1.0), (0.0, float("nan")), (float("-inf"), 1.0)])
def test_a_window_that_is_none_is_an_error(window: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="LOW below HIGH"):
        Window(*window)
    with pytest.raises(SettingError, match="LOW below HIGH"):
        WindowSettings(window_b=window)


def test_an_image_without_contrast_is_an_error() -> None:
    with pytest.raises(ImageError, match="without contrast"):
        default_window(_image(np.full((10, 10, 10), 5.0)), "mr")


def test_the_tumours_of_real_patients_lie_below_the_top_of_the_window(shared_data: Path) -> None:
    for case in ("sts004", "sts014"):
        pet = read_image(shared_data / "sts" / case / "pet.nii.gz")
        scaling, notes = scaling_of(WindowSettings(), pet, "b")
        assert "taken for SUV" in notes[0]
        assert scaling.high == pytest.approx(max(6.0, float(np.percentile(pet.voxels.numpy(), 99.9))))
        assert scaling.saturated_fraction <= 0.0011
