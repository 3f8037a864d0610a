"""Pairs of data sets in BIDS's layout: by subject, session and entities; what is open is refused."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from crossalign.data.bids import BidsChoice, BidsImages, describe_derivative, read_bids_pairs
from crossalign.errors import InputError, InputWarning, ManifestError

CHOICE = BidsChoice(BidsImages("T2w", {}), BidsImages("TRUS", {}))


def data_set(folder: Path, names: Iterable[str]) -> Path:
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def pairs(folder: Path, choice: BidsChoice = CHOICE) -> dict[str, tuple[str, str]]:
    return {one.name: (one.fixed.name, one.moving.name) for one in read_bids_pairs(folder, choice)}


def test_pairs_are_of_one_subject_and_session(tmp_path: Path) -> None:
    names = ["sub-01/anat/sub-01_T2w.nii.gz", "sub-01/us/sub-01_TRUS.nii.gz"]
    names += [f"sub-02/ses-{s}/anat/sub-02_ses-{s}_{x}.nii" for s in ("a", "b") for x in ("T2w", "TRUS", "T1w")]
    assert pairs(data_set(tmp_path, names)) == {
        "sub-01": ("sub-01_T2w.nii.gz", "sub-01_TRUS.nii.gz"),
        "sub-02_ses-a": ("sub-02_ses-a_T2w.nii", "sub-02_ses-a_TRUS.nii"),
        "sub-02_ses-b": ("sub-02_ses-b_T2w.nii", "sub-02_ses-b_TRUS.nii"),
    }


def test_sweeps_share_the_one_mr_of_another_session_and_runs_go_together(tmp_path: Path) -> None:
    names = ["sub-1/ses-mr/anat/sub-1_ses-mr_T2w.nii.gz"]
    names += [f"sub-1/ses-us/us/sub-1_ses-us_run-0{n}_TRUS.nii.gz" for n in (1, 2)]
    names += [f"sub-2/anat/sub-2_run-{n}_{x}.nii.gz" for n in (1, 2) for x in ("T2w", "TRUS")]
    found = pairs(data_set(tmp_path, names))
    assert {one[0] for name, one in found.items() if name.startswith("sub-1_")} == {"sub-1_ses-mr_T2w.nii.gz"}
    assert sorted(found) == ["sub-1_ses-us_run-01", "sub-1_ses-us_run-02", "sub-2_run-1", "sub-2_run-2"]
    assert found["sub-2_run-2"] == ("sub-2_run-2_T2w.nii.gz", "sub-2_run-2_TRUS.nii.gz")


def test_what_is_open_is_refused_until_entities_choose(tmp_path: Path) -> None:
    names = ["sub-1/anat/sub-1_acq-ax_T2w.nii.gz", "sub-1/anat/sub-1_acq-cor_T2w.nii.gz", "sub-1/us/sub-1_TRUS.nii.gz"]
    folder = data_set(tmp_path, names)
    with pytest.raises(ManifestError, match=r"belongs to one of sub-1_acq-ax_T2w\.nii\.gz, sub-1_acq-cor"):
        pairs(folder)
    chosen = BidsChoice(BidsImages.parse("T2w, acq=ax", "--bids-fixed"), CHOICE.moving)
    assert pairs(folder, chosen)["sub-1"][0] == "sub-1_acq-ax_T2w.nii.gz"


def test_masks_of_derivatives_and_what_has_none(tmp_path: Path) -> None:
    names = [f"sub-{n}/anat/sub-{n}_{x}.nii.gz" for n in (1, 2) for x in ("T2w", "TRUS")]
    names += ["sub-3/anat/sub-3_T2w.nii.gz", "derivatives/seg/sub-1/anat/sub-1_desc-gland_mask.nii.gz"]
    names += ["derivatives/moved/sub-3/anat/sub-3_space-T2w_TRUS.nii.gz"]
    choice = BidsChoice(CHOICE.fixed, CHOICE.moving, BidsImages.parse("mask,desc=gland", "--bids-fixed-mask"))
    with pytest.warns(InputWarning) as issued:
        first, second = read_bids_pairs(data_set(tmp_path, names), choice)
    assert first.fixed_mask is not None
    assert (first.fixed_mask.name, second.fixed_mask, first.moving_mask) == ("sub-1_desc-gland_mask.nii.gz", None, None)
    assert [str(one.message) for one in issued] == [
        "without a pair, and left out: sub-3 (1 in all)",
        "without a fixed mask: sub-2 (1 in all)",
    ]


def test_bad_data_sets_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ManifestError, match=r"holds no dataset_description.json: not a BIDS data set"):
        read_bids_pairs(tmp_path, CHOICE)
    folder = data_set(tmp_path, ["sub-1/anat/sub-1_T2w.nii.gz"])
    with pytest.raises(ManifestError, match="no pair of one subject among 1 T2w and 0 TRUS images"):
        read_bids_pairs(folder, CHOICE)
    for text in ("", "T2w,acq", "T2w,=x", "../x"):
        with pytest.raises(InputError, match="--bids-fixed"):
            BidsImages.parse(text, "--bids-fixed")
    monkeypatch.setitem(sys.modules, "ancpbids", None)
    with pytest.raises(InputError, match=r"pip install 'crossalign\[bids\]'"):
        read_bids_pairs(folder, CHOICE)


def test_results_describe_themselves() -> None:
    held = json.loads(describe_derivative("x", "1.2"))
    assert held["DatasetType"] == "derivative"
    assert held["GeneratedBy"][0]["Name"] == "crossalign"
    assert {"Name", "BIDSVersion"} <= held.keys()
