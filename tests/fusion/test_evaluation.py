"""Tables of scores, the limit above them, and the paper's preparation."""

import csv
import io
import math

import pytest
import torch
from tests.fusion.phantom import head, pair

from crossalign.errors import InputError, OutputError
from crossalign.fusion.alignment import align
from crossalign.fusion.classical import Average, LaplacianPyramid, Maximum
from crossalign.fusion.evaluation import LIMIT, PUBLISHED_SLICE, WHOLE_VOLUME, evaluate_fusion, similarity_limit
from crossalign.fusion.metrics.scores import INPUT_SCORES, score_fusion
from crossalign.fusion.metrics.structure import qabf_score, ssim_score
from crossalign.fusion.preparation import mni_template, prepare_pair, write_prepared
from crossalign.fusion.tables import fusion_csv, fusion_markdown, write_fusion_evaluation
from crossalign.geometry import Rigid, mean_displacement_mm
from crossalign.images import Image, read_image, read_transform

METHODS = {"average": Average(), "maximum": Maximum()}


@pytest.fixture(scope="module")
def evaluation():
    return evaluate_fusion({"phantom": pair}, METHODS, torch.device("cpu"))


def test_rows_come_in_order_with_the_limit_after_the_methods(evaluation):
    keys = [(row.case, row.protocol, row.method) for row in evaluation.rows]
    assert keys == [
        ("phantom", WHOLE_VOLUME, "average"),
        ("phantom", WHOLE_VOLUME, "maximum"),
        ("phantom", WHOLE_VOLUME, LIMIT),
        ("phantom", PUBLISHED_SLICE, "average"),
        ("phantom", PUBLISHED_SLICE, "maximum"),
    ]


def test_scores_of_each_input_stand_beside_their_mean_and_the_smaller(evaluation):
    scores = evaluation.rows[1].scores
    assert set(scores.inputs) == {*INPUT_SCORES, "qabf_share"}
    for one in scores.inputs.values():
        assert one.smaller() <= one.mean() or math.isnan(one.mean())
    mri, pet = pair()
    lines = list(csv.DictReader(io.StringIO(fusion_csv(evaluation))))
    assert float(lines[1]["ssim_mean"]) == pytest.approx(scores.inputs["ssim"].mean(), abs=1e-5)
    assert float(lines[1]["ssim_min"]) == pytest.approx(scores.inputs["ssim"].smaller(), abs=1e-5)
    assert mri.grid == pet.grid


def test_markdown_has_a_table_for_each_protocol_and_the_printed_numbers(evaluation):
    text = fusion_markdown(evaluation)
    assert "### phantom: whole volume" in text
    assert "### phantom: published slice" in text
    assert "| DC2Fusion (3-D) | 20.714 | 0.718 | 1.312 | 0.807 |" in text
    assert "voxels optimised for SSIM" in text


def test_both_files_are_written_or_neither(evaluation, tmp_path):
    with pytest.raises(OutputError, match=r"end the name in \.csv"):
        write_fusion_evaluation(evaluation, tmp_path / "scores.txt")
    (tmp_path / "scores.md").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write_fusion_evaluation(evaluation, tmp_path / "scores.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.md"]
    write_fusion_evaluation(evaluation, tmp_path / "scores.csv", overwrite=True)
    assert (tmp_path / "scores.csv").read_text() == fusion_csv(evaluation)


def test_nothing_to_do_is_an_error():
    with pytest.raises(InputError, match="1 pair and 1 method"):
        evaluate_fusion({}, METHODS)
    with pytest.raises(InputError, match="1 pair and 1 method"):
        evaluate_fusion({"phantom": pair}, {})


def test_shares_of_qabf_add_up_to_it():
    a, b = head()
    fused = LaplacianPyramid().fuse(a, b)
    scores = score_fusion(fused, a, b)
    assert scores.qabf == pytest.approx(float(qabf_score(fused, a, b)), abs=1e-6)
    share = scores.inputs["qabf_share"]
    assert min(share.mri, share.pet) <= scores.qabf <= max(share.mri, share.pet)


def test_the_limit_is_above_every_method_and_repeatable():
    a, b = head()

    def mean_ssim(fused):
        return float(ssim_score(fused, a) + ssim_score(fused, b)) / 2

    best = similarity_limit(a, b, steps=60)
    others = [mean_ssim(method.fuse(a, b)) for method in (Average(), Maximum(), LaplacianPyramid())]
    assert mean_ssim(best) > max(others) + 0.01
    assert 0 <= float(best.min()) <= float(best.max()) <= 1
    assert torch.equal(best, similarity_limit(a, b, steps=60))


def _brainweb(folder):
    return tuple(read_image(folder / "brain" / f"brainweb06_{kind}_2mm.nii.gz") for kind in ("t1", "pet"))


def test_a_moved_pet_is_brought_back(shared_data):
    mri, pet = _brainweb(shared_data)
    parameters = torch.tensor([6.0, -5.0, 4.0, 4.0, -3.0, 5.0], dtype=torch.float64)
    truth = Rigid.from_parameters(parameters, mri.grid.center_mm())
    moved = pet.resampled(pet.grid, truth.inverse(), fill=0.0)  # what lies at p in the MRI lies at truth(p) here
    found = align(mri, moved)
    points = mri.grid.corners_mm() * 0.5 + mri.grid.center_mm() * 0.5
    assert float(mean_displacement_mm(found.fixed_to_moving, truth, points)) < 2.0


def test_preparation_brings_a_real_pair_into_one_cube_in_mni_space(shared_data, tmp_path):
    mri, pet = _brainweb(shared_data)
    prepared = prepare_pair(mri, pet, voxels=48)
    assert prepared.mri.voxels.shape == (48, 48, 48)
    assert prepared.mri.grid == prepared.pet.grid
    assert prepared.mri.grid.direction == ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    assert 0 <= float(prepared.pet.voxels.min()) < float(prepared.pet.voxels.max()) == 1
    assert prepared.mri_to_pet.shift_mm() < 2.0  # the two are aligned by construction
    template, mask = mni_template()
    brain = prepared.mri.resampled(template.grid).voxels[mask.labels > 0]
    outside = prepared.mri.resampled(template.grid).voxels[mask.labels == 0]
    assert float(brain.mean()) > 1.5 * float(outside.mean())
    correlation = torch.corrcoef(torch.stack((brain, template.voxels[mask.labels > 0])))[0, 1]
    assert float(correlation) > 0.5
    write_prepared(prepared, tmp_path / "case")
    assert torch.equal(read_image(tmp_path / "case" / "mri.nii.gz").voxels, prepared.mri.voxels)
    back = read_transform(tmp_path / "case" / "mri_to_pet.tfm")
    assert torch.allclose(back.matrix(), prepared.mri_to_pet.fixed_to_moving.matrix())
    with pytest.raises(OutputError, match="cannot be made"):
        write_prepared(prepared, tmp_path / "case")


def test_the_template_lies_where_its_header_says():
    from nilearn.datasets import load_mni152_template

    template, mask = mni_template()
    source = load_mni152_template(resolution=2)
    index = (30, 70, 50)  # x, y, z of nibabel
    x, y, z, _ = source.affine @ (*index, 1)
    point = template.grid.to_physical(torch.tensor([index], dtype=torch.float64))[0]
    assert point.tolist() == pytest.approx([-x, -y, z])
    assert float(template.voxels[index[::-1]]) == pytest.approx(float(source.get_fdata()[index]), abs=1e-6)
    assert mask.grid == template.grid
    assert isinstance(template, Image)
