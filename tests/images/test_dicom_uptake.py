"""SUVbw by values computed by hand: 370 MBq, 70 kg, and a half-life after which exactly half is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.sequence import Sequence as Items
from tests.images.dicom_files import PT, item, write_series

from crossalign.errors import InputWarning
from crossalign.images import read_image, read_volume

HALF_LIFE = 6600.0  # 1 h 50 min
VOXELS = np.array([[[0, 1000], [2000, 4000]], [[500, 0], [1, 3]]], np.int16)
WHOLE = 70_000 / 370e6  # g / Bq at the injection
HALF = 70_000 / 185e6  # a half-life later


def write_pet(folder: Path, *, dose: dict[str, Any] | None = None, **changes: Any) -> Path:
    given: dict[str, Any] = {
        "RadionuclideTotalDose": 370e6,
        "RadionuclideHalfLife": HALF_LIFE,
        "RadiopharmaceuticalStartTime": "090000",
    } | (dose or {})
    values: dict[str, Any] = {
        "Units": "BQML",
        "CorrectedImage": ["DECY", "ATTN"],
        "DecayCorrection": "START",
        "PatientWeight": 70.0,
        "SeriesTime": "105000",
        "AcquisitionTime": "105000",
        "RescaleIntercept": 0,
        "RadiopharmaceuticalInformationSequence": Items([item(**{k: v for k, v in given.items() if v is not None})]),
    } | changes
    slopes = [{"RescaleSlope": 2.0}, {"RescaleSlope": 0.5}]  # a slope for each slice, as GE writes it
    write_series(
        folder, VOXELS, sop_class=PT, modality="PT", each=slopes, **{k: v for k, v in values.items() if v is not None}
    )
    return folder


ACTIVITY = VOXELS * np.array([2.0, 0.5])[:, None, None]

FACTORS: dict[str, tuple[dict[str, Any], float]] = {
    "to the scan": ({}, HALF),
    "to the injection": ({"DecayCorrection": "ADMIN"}, WHOLE),
    "over midnight": (
        {"dose": {"RadiopharmaceuticalStartTime": "231000"}, "SeriesTime": "010000", "AcquisitionTime": "010000"},
        HALF,
    ),
    "with the date": (
        {"dose": {"RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": "20240229090000.00"}},
        HALF,
    ),
    "with dates that were shifted apart": ({"dose": {"RadiopharmaceuticalStartDateTime": "20240301090000.00"}}, HALF),
    "of a series that was made afterwards": ({"SeriesTime": "180000"}, HALF),
    "of a later bed, made afterwards": (
        # it began 20 minutes after the scan; its middle lies 1320 s after it, half of 240 s later
        {
            "SeriesTime": "180000",
            "AcquisitionTime": "111000",
            "FrameReferenceTime": 1_320_000,
            "ActualFrameDuration": 240_000,
        },
        HALF,
    ),
    "injected at midnight": (
        {"dose": {"RadiopharmaceuticalStartTime": "000000"}, "SeriesTime": "015000", "AcquisitionTime": "015000"},
        HALF,
    ),
    "already SUV": ({"Units": "GML"}, 1.0),
    "already SUV by weight": ({"Units": "GML", "SUVType": "BW"}, 1.0),
}


@pytest.mark.parametrize(("changes", "factor"), FACTORS.values(), ids=FACTORS)
def test_suv(changes: dict[str, Any], factor: float, tmp_path: Path) -> None:
    image = read_image(write_pet(tmp_path / "pet", **changes))
    assert image.unit == "SUV"
    assert np.allclose(image.voxels.numpy(), ACTIVITY * factor, rtol=1e-6, atol=0)


def test_suv_of_a_number_worked_out_by_hand(tmp_path: Path) -> None:
    # stored 4000, slope 2: 8000 Bq/ml; 185 MBq are left of 370 in 70 kg: 8000 * 70000 / 185e6 = 3.027027
    image = read_image(write_pet(tmp_path / "pet"))
    assert float(image.voxels[0, 1, 1]) == pytest.approx(3.027027, abs=1e-6)


def test_suv_of_counts_by_the_scanners_own_factor(tmp_path: Path) -> None:
    from pydicom import dcmread

    folder = write_pet(tmp_path / "pet", Units="CNTS")
    for path in folder.iterdir():
        dataset = dcmread(path)
        dataset.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "DS", "0.001")
        dataset.save_as(path)
    image = read_image(folder)
    assert image.unit == "SUV"
    assert np.allclose(image.voxels.numpy(), ACTIVITY * 0.001, rtol=1e-6)


UNKNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "no weight": ({"PatientWeight": None}, "BQML, no SUV could be computed: the weight is not in the header"),
    "no weight, no dose": (
        {"PatientWeight": None, "dose": {"RadionuclideTotalDose": None}},
        "the weight and the injected dose are not in the header",
    ),
    "nothing of the drug": ({"RadiopharmaceuticalInformationSequence": None}, "the injected dose is not in the header"),
    "dose in MBq": (
        {"dose": {"RadionuclideTotalDose": 370.0}},
        "the injected dose is 370, expected 100000 to 1e\\+11 Bq",
    ),
    "weight in g": ({"PatientWeight": 70_000.0}, "the weight is 70000, expected 0.2 to 500 kg"),
    "no half-life": ({"dose": {"RadionuclideHalfLife": None}}, "the half-life"),
    "no time": ({"dose": {"RadiopharmaceuticalStartTime": None}}, "the times of injection and scan"),
    "no decay correction": ({"DecayCorrection": "NONE"}, "the decay correction is NONE, expected START or ADMIN"),
    "no attenuation correction": ({"CorrectedImage": ["DECY", "RAN"]}, "not corrected for attenuation"),
    "SUV by lean mass": ({"Units": "GML", "SUVType": "LBM"}, r"SUV of another type \(LBM\)"),
    "counts": ({"Units": "CNTS"}, r"counts without the scanner's factor \(7053,1000\)"),
    "no unit": ({"Units": None}, "PET stays in no unit"),
}


@pytest.mark.parametrize(("changes", "reason"), UNKNOWN.values(), ids=UNKNOWN)
def test_counts_are_kept_with_a_warning(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.warns(InputWarning, match=reason) as caught:
        image = read_volume(write_pet(tmp_path / "pet", **changes))
    assert image.unit == ""
    assert torch.equal(image.voxels, torch.from_numpy(ACTIVITY.astype(np.float32)))
    assert "20240229" not in str(caught[0].message)
