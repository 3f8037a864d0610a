"""Settings of a run check themselves, survive JSON, and import quickly; calibrations are monotonous."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, fields
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossalign.errors import InputError
from crossalign.fields import settings_of
from crossalign.models import Calibration, RunSettings, StageSettings

ERROR_MM = st.none() | st.floats(0, 50)
FULL = RunSettings(8, 5.0, 3, 10, 0.2, 0.5, 0.0, True, 12.0, 15.0, 4.5, (0.0, 1.2, 0.6), "auto")


@pytest.mark.parametrize("settings", [RunSettings(), FULL, RunSettings(orientation_correction=270)])
def test_settings_survive_json(settings: RunSettings) -> None:
    assert settings_of(RunSettings, json.loads(json.dumps(asdict(settings)))) == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"initialisations": "many"}, "'initialisations' must be a whole number"),
        ({"initialisations": True}, "'initialisations' must be a whole number"),
        ({"search": 1}, "'search' must be true or false"),
        ({"orientation_correction": 45}, "'orientation_correction' must be one of 0, 90, 180, 270, auto"),
        ({"orientation_correction": 90.0}, "'orientation_correction' must be one of"),
        ({"orientation_correction": [90]}, "'orientation_correction' must be one of"),
        ({"tomorrow": 1}, "'tomorrow' is no setting"),
        ([1], "expected entries by name"),
    ],
)
def test_saved_settings_name_what_is_wrong(values: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings_of(RunSettings, values)


def test_saved_settings_take_what_is_not_named_from_the_defaults() -> None:
    assert settings_of(StageSettings, {"crop_shape": [16, 8, 8]}) == StageSettings(crop_shape=(16, 8, 8))
    assert settings_of(StageSettings, {"model": "msreg"}) == StageSettings("msreg")  # as earlier versions called it
    with pytest.raises(InputError, match="'per_dispersion' is missing"):
        settings_of(Calibration, {"base_mm": 1})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RunSettings(initialisations=0), "'initialisations' must be 1 or more"),
        (lambda: RunSettings(initialisations=10**11), "'initialisations' must be 10000 or less"),
        (lambda: RunSettings(max_passes=0), "'max_passes' must be 1 or more"),
        (lambda: RunSettings(max_passes=10**9), "'max_passes' must be 1000 or less"),
        (lambda: RunSettings(seed=2**63), "'seed' must be"),
        (lambda: RunSettings(perturbation_mm=0.0), "'perturbation_mm' must be over 0"),
        (lambda: RunSettings(perturbation_mm=math.nan), "'perturbation_mm'"),
        (lambda: RunSettings(tolerance_mm=0.0), "'tolerance_mm' must be over 0"),
        (lambda: RunSettings(tolerance_mm=math.inf), "'tolerance_mm' must be over 0"),
        (lambda: RunSettings(refinement_step=0.0), "'refinement_step' must be over 0"),
        (lambda: RunSettings(refinement_step=math.nan), "'refinement_step' must be 0 or more"),
        (lambda: RunSettings(refinement_step_z=1.5), "'refinement_step_z' must be 1 or less"),
        (lambda: RunSettings(search_shift_mm=0.0), "'search_shift_mm' must be over 0"),
        (lambda: RunSettings(search_rotation_deg=100.0), "'search_rotation_deg' must be 90 or less"),
        (lambda: RunSettings(orientation_correction=cast("Any", 45)), "'orientation_correction' must be one of"),
        (lambda: Calibration(0.0, -1.0, 0.0, 5.0), "slopes must be 0 or more"),
        (lambda: Calibration(0.0, 1.0, 0.0, 0.0), "threshold over 0"),
        (lambda: Calibration(math.nan, 1.0, 0.0, 5.0), "finite numbers"),
        (lambda: Calibration(1e300, 0.0, 0.0, 5.0), "within 1e"),
    ],
)
@pytest.mark.usefixtures("shape_checks_off")
def test_settings_check_themselves(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_reports_say_what_differs_from_running_each_stage_once() -> None:
    assert RunSettings().text() == "each stage once"
    for field in fields(RunSettings):
        value = getattr(FULL, field.name)
        words = [f"{one:g}" for one in value] if isinstance(value, tuple) else [str(value)]
        said = all(word in FULL.text() for word in words)
        assert field.name.startswith("search_") or said or isinstance(value, (bool, float)), field


@given(base=st.floats(-5, 5), slopes=st.tuples(st.floats(0, 3), st.floats(0, 3)), a=ERROR_MM, b=ERROR_MM)
def test_more_dispersion_or_expected_error_never_means_a_smaller_one(
    base: float, slopes: tuple[float, float], a: float | None, b: float | None
) -> None:
    calibration = Calibration(base, *slopes, 5.0)
    expected = calibration.expected_sre_mm(a, b)
    missing = (a is None and slopes[0] > 0) or (b is None and slopes[1] > 0)
    assert (expected is None) == missing
    if expected is not None:
        more = calibration.expected_sre_mm(None if a is None else a + 1, None if b is None else b + 1)
        assert more is not None
        assert 0 <= expected <= more


def test_settings_are_read_without_torch() -> None:
    code = (
        "import sys, crossalign.models.run_settings, crossalign.models.stage_settings as s; s.StageSettings(); "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
