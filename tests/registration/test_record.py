"""The record of a registration: what a script reads instead of the printed lines."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from crossalign.errors import OutputError
from crossalign.geometry import Rigid
from crossalign.registration import Expectation, Initialisation, RegistrationResult, Step
from crossalign.registration.record import registration_record, write_record

CENTER = torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64)
SIX = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dtype=torch.float64)
START = Initialisation(Rigid.identity(), "header", "by the headers")


def result(**changes: Any) -> RegistrationResult:
    found = Rigid.from_parameters(SIX, CENTER)
    fields: dict[str, Any] = {
        "fixed_to_moving": found,
        "initial": Rigid.identity(),
        "center_mm": CENTER,
        "method": "mi",
    }
    fields |= {"steps": (Step("fine", found, 0.5),), "seconds": 0.5, "settings": {"bins": "32"}}
    return RegistrationResult(**(fields | changes))


def test_the_record_holds_the_transform_and_how_it_came_about() -> None:
    record = json.loads(json.dumps(registration_record(result(), START, {"fixed": "mr.nii.gz"})))
    assert record["format"] == "crossalign registration 2"
    matrix = torch.tensor(record["fixed_to_moving"], dtype=torch.float64)
    assert torch.allclose(matrix, result().fixed_to_moving.matrix(), atol=1e-12)
    assert record["motion"]["translation_mm"] + record["motion"]["rotation_deg"] == pytest.approx(SIX.tolist())
    assert record["steps"][0]["name"] == "fine"
    assert record["initialisation"]["name"] == "header"
    assert record["files"] == {"fixed": "mr.nii.gz"}
    assert (record["trusted"], record["reasons"], record["expected_sre_mm"]) == (None, [], None)
    assert "LPS" in record["matrices"]
    assert record["versions"]["crossalign"]


def test_reasons_make_a_result_untrusted_whatever_else_is_said() -> None:
    reasons = ("far from the initial transform: try another one", "little overlap; begin closer")
    made = result(expectation=Expectation(1.0, True, reasons=reasons), warnings=("spacing was 0",))
    assert (made.reasons, made.trusted) == (reasons, False)
    record = registration_record(made, START)
    assert (record["trusted"], record["reasons"], record["warnings"]) == (False, list(reasons), ["spacing was 0"])


def test_a_result_over_its_limit_has_a_reason_even_where_the_method_gives_none() -> None:
    (reason,) = result(expectation=Expectation(9.3, False)).reasons
    assert "9.3 mm" in reason
    assert "--initial" in reason


def test_a_trusted_result_has_no_reason() -> None:
    fine = result(expectation=Expectation(2.0, True), warnings=("odd header",))
    assert (fine.reasons, fine.trusted, fine.warnings) == ((), True, ("odd header",))


def test_what_is_undefined_is_null_and_the_file_is_whole_or_absent(tmp_path: Path) -> None:
    record = registration_record(result(expectation=Expectation(float("nan"))), START)
    write_record(record, tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["expected_sre_mm"] is None
    with pytest.raises(OutputError, match="exists already"):
        write_record(record, tmp_path / "r.json")
    with pytest.raises(ValueError, match="JSON"):
        write_record({"x": float("nan")}, tmp_path / "s.json")
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_the_record_holds_the_bound_of_a_trusted_result_and_its_evidence() -> None:
    trusted = Expectation(4.0, True, evidence={"return_mm": 3.0}).bounded(7.2, 0.9)
    record = registration_record(result(expectation=trusted), START)
    assert record["bound"] == {"sre_mm": 7.2, "probability": 0.9}
    assert record["evidence"]["return_mm"] == 3.0
    assert registration_record(result(expectation=trusted.untrusted("far off; begin closer")), START)["bound"] is None
