"""What is odd about a pair is told, what does not fit into memory is refused, and the JSON file carries it all."""

import json
from dataclasses import replace

import pytest
import torch
from tests.fusion.phantom import SHAPE, grid, pair

from crossalign.errors import ImageError, InputError
from crossalign.fusion import fuse, named_fusion_method
from crossalign.fusion import result as memory
from crossalign.fusion.classical import Average
from crossalign.fusion.fused_files import read_scalings, write_fusion
from crossalign.fusion.result import needed_bytes
from crossalign.geometry import Grid
from crossalign.images import Image


def _warnings(mri: Image, pet: Image) -> str:
    return " | ".join(fuse(mri, pet, Average()).warnings)


def test_a_segmentation_is_told_from_a_scan() -> None:
    mri, pet = pair()
    labels = (mri.voxels / 250).round()
    assert "seg.nii: holds whole numbers in plateaus" in _warnings(mri, Image(labels, mri.grid, "seg.nii"))
    assert _warnings(Image(mri.voxels.round(), mri.grid), pet) == ""


def test_one_image_given_twice_is_told() -> None:
    _, pet = pair()
    again = Image(pet.voxels.clone(), pet.grid, "again.nii")
    assert "again.nii shows the same as pet.nii.gz" in _warnings(pet, again)


def test_an_image_of_one_value_where_both_lie_is_told() -> None:
    mri, _ = pair()
    block = torch.full((12, 20, 30), 5.0)
    block[:, :, 14:] = 10 * torch.rand(12, 20, 16, generator=torch.Generator().manual_seed(0))
    half = mri.voxels[:, :, :23].contiguous()
    cut = Image(half, Grid((SHAPE[0], SHAPE[1], 23), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0)), "cut.nii")
    flat = Image(block, Grid((12, 20, 30), (2.0, 2.0, 2.0), (20.0, 28.0, 32.0)), "flat.nii")
    assert "flat.nii: has one value where both images lie" in _warnings(cut, flat)


def test_a_signed_map_loses_its_negative_part_and_says_so() -> None:
    mri, pet = pair()
    waves = torch.sin(torch.arange(SHAPE[1]) / 4)[:, None] * pet.voxels
    assert "were clipped, most of them below 0" in _warnings(mri, Image(waves.contiguous(), pet.grid, "t-map.nii"))


def test_a_fusion_that_does_not_fit_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    mri, pet = pair()
    monkeypatch.setattr(memory, "available_bytes", lambda: 1_000_000)
    with pytest.raises(ImageError, match=r"fusing 46 x 48 x 44 voxels by 'average' takes 0.0 GiB .* crop or resample"):
        fuse(mri, pet, Average())
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    assert fuse(mri, pet, Average()).method == "average"


def test_the_guard_knows_what_each_method_takes() -> None:
    shape = (160, 192, 160)
    big = Grid(shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    voxels = 160 * 192 * 160
    for name in ("average", "maximum", "laplacian", "wavelet", "laplacian-2d", "wavelet-2d"):
        method_bytes = named_fusion_method(name).needed_bytes(shape)
        assert 8 * voxels < needed_bytes(big, big, method_bytes) <= 36 * voxels
    network = named_fusion_method("dcfb-compact")
    assert network.needed_bytes(shape) > 200 * voxels
    assert network.needed_bytes((640, 640, 640)) < 100 * 640**3  # by tiles


def test_what_was_odd_stands_in_the_json_file_without_names(tmp_path) -> None:
    mri, pet = pair()
    named = Image(mri.voxels, mri.grid, "DOE_JANE.nii.gz")
    result = fuse(named, Image(pet.voxels.roll(14, 2), pet.grid, "DOE_JANE_PET.nii"), Average())
    result = replace(result, trusted=False, reasons=("DOE_JANE_PET.nii lies elsewhere: try again",))
    _, sidecar = write_fusion(result, tmp_path / "fused.nii.gz")
    record = json.loads(sidecar.read_text())
    assert "DOE" not in sidecar.read_text()
    assert record["trusted"] is False
    assert record["doubts"] == ["the PET lies elsewhere: try again"]
    assert "are the two registered?" in record["warnings"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"low": "0"}, "'low' is 0, expected a number"),
        ({"high": None}, "'high' is None, expected a number"),
        ({"high": True}, "'high' is True, expected a number"),
        ({"high": -5.0}, "'high' is -5, expected more than 'low'"),
        ({"unit": 3}, "'unit' is 3, expected a text"),
        ({"padding": []}, r"'padding' is \[\], expected a number"),
    ],
)
def test_a_damaged_json_file_is_told_by_its_field(tmp_path, change: dict[str, object], words: str) -> None:
    _, sidecar = write_fusion(fuse(*pair(), Average()), tmp_path / "fused.nii.gz")
    record = json.loads(sidecar.read_text())
    record["inputs"]["pet"] |= change
    sidecar.write_text(json.dumps(record))
    with pytest.raises(InputError, match=words):
        read_scalings(sidecar)


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"inputs": 3}', '{"inputs": {"mri": {}}}', "[" * 5000, '{"a": 1e999}'])
def test_other_json_is_refused(tmp_path, text: str) -> None:
    (tmp_path / "fused.json").write_text(text)
    with pytest.raises(InputError, match=r"fused\.json"):
        read_scalings(tmp_path / "fused.json")


def test_json_files_of_earlier_versions_are_read(tmp_path) -> None:
    result = fuse(*pair(), Average())
    _, sidecar = write_fusion(result, tmp_path / "fused.nii.gz")
    record = json.loads(sidecar.read_text())
    for which in ("mri", "pet"):
        del record["inputs"][which]["padding"]
    sidecar.write_text(json.dumps(record))
    assert read_scalings(sidecar)[0] == replace(result.a_scaling, padding=None)
    assert grid().shape == SHAPE
