"""Evaluation of methods: rows, tables, files, and the limit of SSIM."""

import csv
import io
import math

import pytest
import torch
from tests.fusion.phantom import head, pair

from crossalign.errors import InputError, OutputError
from crossalign.fusion.classical import Average, LaplacianPyramid, Maximum
from crossalign.fusion.evaluation import LIMIT, PUBLISHED_SLICE, WHOLE_VOLUME, evaluate_fusion, similarity_limit
from crossalign.fusion.metrics.scores import INPUT_SCORES, score_fusion
from crossalign.fusion.metrics.scores import gradient_preservation_score as qabf
from crossalign.fusion.metrics.scores import structural_similarity_score as ssim
from crossalign.fusion.tables import fusion_csv, fusion_markdown, write_fusion_evaluation

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
    assert set(scores.inputs) == set(INPUT_SCORES)
    for one in scores.inputs.values():
        assert one.smaller() <= one.mean() or math.isnan(one.mean())
    lines = list(csv.DictReader(io.StringIO(fusion_csv(evaluation))))
    assert float(lines[1]["ssim_mean"]) == pytest.approx(scores.inputs["ssim"].mean(), abs=1e-5)
    assert float(lines[1]["ssim_min"]) == pytest.approx(scores.inputs["ssim"].smaller(), abs=1e-5)


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


def test_qabf_lies_between_those_of_both_inputs():
    a, b = head()
    fused = LaplacianPyramid().fuse(a, b)
    scores = score_fusion(fused, a, b)
    assert scores.qabf == pytest.approx(float(qabf(fused, a, b)), abs=1e-6)
    of_inputs = scores.inputs["qabf_input"]
    assert min(of_inputs.mri, of_inputs.pet) <= scores.qabf <= max(of_inputs.mri, of_inputs.pet)


def test_the_limit_is_above_every_method_and_repeatable():
    a, b = head()

    def mean_ssim(fused):
        return float(ssim(fused, a) + ssim(fused, b)) / 2

    best = similarity_limit(a, b, steps=60)
    others = [mean_ssim(method.fuse(a, b)) for method in (Average(), Maximum(), LaplacianPyramid())]
    assert mean_ssim(best) > max(others) + 0.01
    assert 0 <= float(best.min()) <= float(best.max()) <= 1
    assert torch.equal(best, similarity_limit(a, b, steps=60))
