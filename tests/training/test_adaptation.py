"""Adapting a model to a site: it becomes better or stays as it was, whatever references the site has."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tests.training.site import without, write_model, write_site
from tests.training.toys import TINY

from crossalign.data import read_manifest, read_scan_pairs
from crossalign.errors import CrossalignError, InputError, ManifestError, OutputError
from crossalign.evaluation import Row, Scores, surface_registration_error_mm
from crossalign.geometry import Rigid
from crossalign.images import read_label_map, read_transform, surface_points, write_transform
from crossalign.models import Calibration, Model, Stage, load_model
from crossalign.registration import Expectation, named_method
from crossalign.training import AdaptationResult, AdaptationSettings, adapt
from crossalign.training.adaptation.adapt import Watching
from crossalign.training.adaptation.comparison import gain_and_noise_mm
from crossalign.training.adaptation.product import calibrated
from crossalign.training.adaptation.references import ReferencedPair, References
from crossalign.training.adaptation.splitting import split_pairs
from crossalign.training.tasks.registration import seeded_network

OFFSET_MM = 5.0  # of the starting model's answers along each axis: what an adaptation can mend
QUICK = AdaptationSettings(
    steps=50,
    batch=4,
    rate=0.1,
    val_every=25,
    ema_decay=0.9,
    synthesised_pairs=6,
    val_fraction=0.5,
    val_initialisations=3,
    reference_initialisations=2,
)
SHORT = replace(QUICK, steps=2, val_every=1, val_initialisations=1)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_site(tmp_path_factory.mktemp("site"), 6)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "toy.safetensors", offset_mm=OFFSET_MM)


@pytest.fixture(scope="module")
def adapted(site: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> AdaptationResult:
    """An adaptation with everything given, which succeeds."""
    torch.set_num_threads(1)
    return adapt(site, start, tmp_path_factory.mktemp("adapted") / "run", QUICK, "mine")


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def test_a_model_that_is_off_is_mended_and_used_like_any_other(adapted: AdaptationResult, start: Path) -> None:
    assert adapted.is_adapted
    assert adapted.comparison is not None
    assert adapted.comparison.after.mean_mm < adapted.comparison.before.mean_mm - 0.5
    assert adapted.patients == (3, 3)
    assert adapted.references == {"given": 6, "structures": 0, "model": 0}
    assert adapted.model is not None
    assert adapted.model.name == "mine.safetensors"
    model = load_model(adapted.model)
    assert named_method(str(adapted.model)).name == "mine"
    assert model.run == load_model(start).run
    assert "3 patients" in model.card.summary
    assert model.card.measured is not None
    rows = {row[0]: row for row in model.card.measured.rows}
    assert rows["after"][1:] == ("9", f"{adapted.comparison.after.mean_mm:.2f} ± {adapted.comparison.after.sd_mm:.2f}")


def test_the_folder_holds_what_led_to_it(adapted: AdaptationResult) -> None:
    cases = read_manifest(adapted.folder / "manifest.csv")
    assert sorted({case.split for case in cases}) == ["train", "val"]
    with (adapted.folder / "learning-curve.csv").open() as file:
        curve = [(int(row["step"]), float(row["val_sre_mm"])) for row in csv.DictReader(file)]
    assert [step for step, _ in curve] == [0, 25, 50]
    assert curve[-1][1] < curve[0][1]
    with (adapted.folder / "val.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"before", "after"}
    after = [float(row["sre_mm"]) for row in rows if row["method"] == "after"]
    assert adapted.comparison is not None
    assert np.mean(after) == pytest.approx(adapted.comparison.after.mean_mm, abs=1e-3)


def test_training_that_is_of_no_use_leaves_the_model_as_it_was(site: Path, start: Path, tmp_path: Path) -> None:
    result = adapt(site, start, tmp_path / "run", replace(SHORT, rate=1e-12))
    assert not result.is_adapted
    assert "kept as it was" in result.verdict
    assert result.model is not None
    before, after = weights_of(start), weights_of(result.model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "as it was" in load_model(result.model).card.summary


def test_wrong_references_to_train_on_do_not_make_it_worse(start: Path, tmp_path: Path) -> None:
    site, lines = write_site(tmp_path / "site", 6), ["case,split,fixed,moving,fixed_mask,moving_mask,reference"]
    shift = Rigid.from_translation(torch.tensor([9.0, 9.0, 9.0], dtype=torch.float64))
    for number in range(6):
        split, home = "train" if number < 4 else "val", site / f"p{number}"
        if split == "train":
            wrong = shift @ read_transform(home / "reference.tfm")
            write_transform(wrong, home / "reference.tfm", overwrite=True)
        files = ("mr.nii.gz", "us.nii.gz", "mr_gland.nii.gz", "us_gland.nii.gz", "reference.tfm")
        lines.append(",".join([f"p{number}", split, *(f"p{number}/{name}" for name in files)]))
    (site / "pairs.csv").write_text("\n".join(lines) + "\n")
    right = write_model(tmp_path / "right.safetensors")
    result = adapt(site / "pairs.csv", right, tmp_path / "run", replace(QUICK, synthesised_pairs=0))
    assert not result.is_adapted
    assert result.model is not None
    assert all(torch.equal(value, weights_of(result.model)[name]) for name, value in weights_of(right).items())


def test_two_structures_stand_in_for_a_reference(start: Path, tmp_path: Path) -> None:
    site = write_site(tmp_path / "site", 6)
    truth = {home.name: read_transform(home / "reference.tfm") for home in site.iterdir()}
    without(site, "reference.tfm")
    result = adapt(site, start, tmp_path / "run", SHORT)
    fitted = result.references["structures"]
    assert fitted >= 4
    assert fitted + len(result.left_out) == 6
    assert all("fit of both structures is not trusted" in one.reason for one in result.left_out)
    for case in read_manifest(result.folder / "manifest.csv"):
        surface = surface_points(read_label_map(case.fixed_mask))
        assert surface_registration_error_mm(read_transform(case.reference), truth[case.name], surface) < 5


def test_one_structure_leaves_the_model_s_own_answers(start: Path, tmp_path: Path) -> None:
    site = without(write_site(tmp_path / "site", 4), "reference.tfm", "us_gland.nii.gz")
    result = adapt(site, start, tmp_path / "run", SHORT)
    assert result.references == {"given": 0, "structures": 0, "model": 4}
    assert any("starting model's own answers" in note for note in result.notes)


def test_answers_that_are_not_trusted_are_no_references(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site", 5)
    for number in range(2):
        for name in ("reference.tfm", "us_gland.nii.gz"):
            (site / f"p{number}" / name).unlink()
    doubtful = write_model(tmp_path / "toy.safetensors", calibration=Calibration(9.0, 0.0, 0.0, 1.0))
    with pytest.raises(InputError, match=r"got 3 with a reference \(2 pairs have none, the first: p0: the model does"):
        adapt(site, doubtful, tmp_path / "run", SHORT)
    assert not (tmp_path / "run").exists()
    (site / "p0" / "us_gland.nii.gz").write_bytes((site / "p2" / "us_gland.nii.gz").read_bytes())
    with pytest.raises(CrossalignError, match="case p0"):  # of another grid
        adapt(site, doubtful, tmp_path / "run", SHORT)
    (site / "p0" / "us_gland.nii.gz").unlink()
    (site / "p0" / "reference.tfm").write_bytes((site / "p2" / "reference.tfm").read_bytes())
    result = adapt(site, doubtful, tmp_path / "run", SHORT)
    assert [one.name for one in result.left_out] == ["p1"]
    assert sum(result.patients) == 4


def test_it_goes_on_where_it_was_stopped(site: Path, tmp_path: Path) -> None:
    start = write_model(tmp_path / "toy.safetensors", stages=2, offset_mm=OFFSET_MM)
    settings = replace(QUICK, steps=6, val_every=3, val_initialisations=1)
    whole = adapt(site, start, tmp_path / "whole", settings)
    stopped = adapt(site, start, tmp_path / "run", settings, minutes=1e-9)
    assert stopped.model is None
    assert "goes on from here" in stopped.verdict

    def killed(_stage: int, row: Mapping[str, float]) -> None:
        if row["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(site, start, tmp_path / "run", settings, watching=Watching(step=killed))
    result = adapt(site, start, tmp_path / "run", settings)
    assert [curve.number for curve in result.curves] == [1, 2]
    assert whole.model is not None
    assert result.model is not None
    first, second = weights_of(whole.model), weights_of(result.model)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for other, message in ((replace(settings, seed=1), "settings.seed: was 0, now 1"), (SHORT, "settings.steps")):
        with pytest.raises(OutputError, match=message):
            adapt(site, start, tmp_path / "run", other)


def test_the_stage_that_training_goes_on_from_can_be_trained_alone(site: Path, tmp_path: Path) -> None:
    start = write_model(tmp_path / "toy.safetensors", stages=2, offset_mm=OFFSET_MM)
    result = adapt(site, start, tmp_path / "run", replace(QUICK, stages="initial"))
    assert [curve.number for curve in result.curves] == [2]
    assert result.is_adapted
    assert result.model is not None
    before, after = load_model(start).stages, load_model(result.model).stages
    same = [
        all(torch.equal(a, b) for a, b in zip(x.network.parameters(), y.network.parameters(), strict=True))
        for x, y in zip(before, after, strict=True)
    ]
    assert same == [True, False]


def test_the_model_corrects_the_headers_that_it_was_adapted_with(site: Path, start: Path, tmp_path: Path) -> None:
    result = adapt(site, start, tmp_path / "run", replace(SHORT, orientation_correction=90))
    assert result.model is not None
    assert load_model(result.model).run.orientation_correction == 90


def rows_after(patients: int, repeats: int, true_mm: float, expected_mm: float) -> list[Row]:
    """Val registrations of an adapted model whose errors lie about one mean."""
    rows = []
    for number in range(patients * repeats):
        off = 0.5 if number % 2 else -0.5
        who, scores = f"p{number % patients}", Scores(true_mm + off)
        known = Expectation(expected_mm, True, None, 1.0)
        rows.append(Row(who, who, "val", "0-20", number, "after", Scores(9.0), scores, (), 1.0, expectation=known))
    return rows


def toy(calibration: Calibration | None) -> Model:
    return Model(Stage(seeded_network(TINY, 0), TINY, {}), calibration=calibration)


def test_a_calibration_is_set_right_on_average_and_its_bound_found_anew() -> None:
    old = Calibration(3.0, 0.0, 1.0, 7.0, bound_factor=2.0, bound_probability=0.9)
    model, text = calibrated(toy(old), rows_after(6, 6, true_mm=5.0, expected_mm=4.0), uncertain=False)
    new = model.calibration
    assert new is not None
    assert new.expected_sre_mm(None, 1.0) == pytest.approx(5.0)
    assert (new.per_network, new.threshold_mm) == (old.per_network, old.threshold_mm)
    assert new.bound_factor == pytest.approx(5.5 / 5.0)
    assert "moved by +1.00 mm" in text
    assert "36 val registrations of 6 patients" in text


@pytest.mark.parametrize(
    ("patients", "uncertain", "message"),
    [(4, False, "36 registrations of 4 val patients are too few"), (6, True, "answers of that model itself")],
)
def test_a_calibration_stays_where_there_is_no_proof(patients: int, uncertain: bool, message: str) -> None:
    model = toy(Calibration(3.0, 0.0, 1.0, 7.0))
    same, text = calibrated(model, rows_after(patients, 36 // patients, 5.0, 4.0), uncertain)
    assert same is model
    assert message in text
    assert "no calibration" in calibrated(toy(None), rows_after(6, 6, 5.0, 4.0), False)[1]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (("mr_gland.nii.gz",), "p0: holds no mr_gland.nii.gz: expected a folder for each patient"),
        (("us.nii.gz",), "p0: holds no us.nii.gz"),
    ],
)
def test_a_folder_that_lacks_a_scan_is_refused(missing: tuple[str, ...], message: str, tmp_path: Path) -> None:
    site = without(write_site(tmp_path / "site", 1), *missing)
    with pytest.raises(ManifestError, match=message):
        read_scan_pairs(site)


def test_a_folder_is_read_by_patient_and_examination(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site", 2)
    (site / "p2").mkdir()
    (site / "p1").rename(site / "p2" / "second")
    (site / "notes.txt").write_text("not a patient")
    (site / "empty").mkdir()
    first, second = read_scan_pairs(site)
    assert (first.name, first.patient, first.split) == ("p0", "p0", "")
    assert (second.name, second.patient) == ("p2-second", "p2")
    assert second.reference == site / "p2" / "second" / "reference.tfm"
    (site / "p0" / "mr.nrrd").write_text("")
    with pytest.raises(ManifestError, match=r"holds mr.nii.gz, mr.nrrd: which of them"):
        read_scan_pairs(site)
    with pytest.raises(ManifestError, match="holds no pair of scans"):
        read_scan_pairs(site / "empty")


def test_what_cannot_be_adapted_is_refused_and_leaves_nothing(site: Path, start: Path, tmp_path: Path) -> None:
    few = write_site(tmp_path / "few", 3)
    with pytest.raises(InputError, match=r"needs 4 patients or more \(2 of them to measure on\), got 3: give more"):
        adapt(few, start, tmp_path / "run", SHORT)
    with pytest.raises(InputError, match="cannot be a file's"):
        adapt(site, start, tmp_path / "run", SHORT, name="../mine")
    assert not (tmp_path / "run").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other files than an adaptation"):
        adapt(site, start, tmp_path / "taken", SHORT)
    assert (tmp_path / "taken" / "letter.txt").read_text() == "mine"


def test_a_damaged_record_is_named(site: Path, start: Path, tmp_path: Path) -> None:
    adapt(site, start, tmp_path / "run", SHORT)
    (tmp_path / "run" / "references.json").write_text(json.dumps({"found": [{"case": "nobody"}], "left_out": []}))
    with pytest.raises(InputError, match="is not of this adaptation"):
        adapt(site, start, tmp_path / "run", SHORT)


def pair_of(site: Path, name: str, kind: str, split: str = "") -> ReferencedPair:
    pair = replace(read_scan_pairs(site)[0], name=name, patient=name, split=split)
    return ReferencedPair(pair, kind, site / "p0" / "reference.tfm")  # type: ignore[arg-type]


def test_patients_with_the_most_certain_references_are_measured_on(site: Path) -> None:
    kinds = ["model", "given", "structures", "model", "given", "model"]
    found = References(tuple(pair_of(site, f"q{number}", kind) for number, kind in enumerate(kinds)))
    for seed in range(5):
        split = split_pairs(found, 0.5, seed)
        assert {one.pair.name for one in split.val} == {"q1", "q2", "q4"}
        assert {one.pair.name for one in split.train} == {"q0", "q3", "q5"}


def test_splits_are_given_for_all_pairs_or_for_none(site: Path) -> None:
    mixed = References((pair_of(site, "a", "given", "train"), pair_of(site, "b", "given")))
    with pytest.raises(InputError, match="'b' has no split, and others have one"):
        split_pairs(mixed, 0.3, 0)
    one_sided = References((pair_of(site, "a", "given", "train"), pair_of(site, "b", "given", "test")))
    with pytest.raises(InputError, match="is of the split 'val'"):
        split_pairs(one_sided, 0.3, 0)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.floats(-3, 3))
def test_a_gain_is_the_patients_mean_and_its_noise_does_not_move_with_it(gains: list[float], shift: float) -> None:
    patients = [f"p{number}" for number in range(len(gains))]
    gain, noise = gain_and_noise_mm(gains, patients)
    moved, same = gain_and_noise_mm([value + shift for value in gains], patients)
    assert gain == pytest.approx(np.mean(gains), abs=1e-9)
    assert moved == pytest.approx(gain + shift, abs=1e-9)
    assert same == pytest.approx(noise, abs=1e-9)
    twice, _ = gain_and_noise_mm([*gains, *gains], [*patients, *patients])
    assert twice == pytest.approx(gain, abs=1e-9)


def test_the_noise_of_two_patients_agrees_with_student_s_t() -> None:
    gain, noise = gain_and_noise_mm([1.0, 1.0, 2.0], ["a", "a", "b"])
    assert gain == 1.5
    assert noise == pytest.approx(0.5 * 3.0777, abs=1e-3)  # the one-sided 90 % quantile for one degree of freedom
    assert gain_and_noise_mm([1.0], ["a"])[1] == math.inf
