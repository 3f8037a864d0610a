"""How cascades are run: settings that check themselves, and travel in a stage's file."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossalign.errors import InputError, OutputError, WeightsError
from crossalign.models import Stage, StageSettings, load_stage, save_stage
from crossalign.models.cascade_settings import (
    Calibration,
    CascadeSettings,
    GridSearch,
    settings_from_json,
    settings_to_json,
    store_settings,
    stored_settings,
)
from crossalign.networks import build_network

FULL = CascadeSettings(8, 5.0, 3, 10, 0.2, GridSearch(12.0, 15.0), Calibration(0.5, 0.7, 1.1, 6.0), (0, 270), True)
DOUBT = st.none() | st.floats(0, 50)


def small_stage() -> Stage:
    return Stage(
        build_network("feature-reg", (8, 8, 8)).eval(), StageSettings("feature-reg", (8, 8, 8)), {"steps": "7"}
    )


@pytest.mark.parametrize("settings", [CascadeSettings(), FULL])
def test_settings_survive_json(settings: CascadeSettings) -> None:
    assert settings_from_json(settings_to_json(settings, 2)) == (settings, 2)


def test_settings_travel_in_the_last_stage_and_count_for_a_cascade_of_that_length(tmp_path: Path) -> None:
    assert stored_settings([small_stage()]) == CascadeSettings()
    store_settings(small_stage(), FULL, 1, tmp_path / "a.safetensors")
    back = load_stage(tmp_path / "a.safetensors")
    assert back.notes["steps"] == "7"
    assert stored_settings([back]) == FULL
    assert stored_settings([small_stage(), back]) == CascadeSettings()
    assert stored_settings([back, small_stage()]) == CascadeSettings()
    with pytest.raises(OutputError, match="exists already"):
        store_settings(back, FULL, 1, tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "3", "{}"),
        json.dumps({"stages": 1, "starts": 0}),
        json.dumps({"stages": 1, "tomorrow": 1}),
        json.dumps({"stages": 1, "calibration": {"base_mm": 1}}),
        json.dumps({"stages": 1, "search": 3}),
        json.dumps({"stages": 1, "starts": "many"}),
    ],
)
def test_settings_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    stage = small_stage()
    save_stage(Stage(stage.network, stage.settings, {"cascade": text}), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="cascade's settings do not fit"):
        stored_settings([load_stage(tmp_path / "a.safetensors")])


@given(base=st.floats(-5, 5), slopes=st.tuples(st.floats(0, 3), st.floats(0, 3)), a=DOUBT, b=DOUBT)
def test_more_doubt_never_means_a_smaller_expected_error(
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CascadeSettings(starts=0), "'starts' and 'max_passes'"),
        (lambda: CascadeSettings(max_passes=0), "'starts' and 'max_passes'"),
        (lambda: CascadeSettings(spread_mm=0.0), "'spread_mm'"),
        (lambda: CascadeSettings(spread_mm=math.nan), "'spread_mm'"),
        (lambda: CascadeSettings(tolerance_mm=0.0), "'tolerance_mm'"),
        (lambda: CascadeSettings(later_share=0.0), "'later_share' must be over 0"),
        (lambda: CascadeSettings(later_share=math.nan), "'later_share' must be over 0"),
        (lambda: CascadeSettings(later_share_z=1.5), "'later_share_z' lie in 0..1"),
        (lambda: CascadeSettings(header_turns_deg=()), "at most once"),
        (lambda: CascadeSettings(header_turns_deg=(45,)), "at most once"),
        (lambda: CascadeSettings(header_turns_deg=(90, 90)), "at most once"),
        (lambda: GridSearch(0.0, 0.0), "a search needs"),
        (lambda: GridSearch(10.0, 100.0), "a search needs"),
        (lambda: Calibration(0.0, -1.0, 0.0, 5.0), "slopes must be 0 or more"),
        (lambda: Calibration(0.0, 1.0, 0.0, 0.0), "threshold over 0"),
        (lambda: Calibration(math.nan, 1.0, 0.0, 5.0), "finite numbers"),
    ],
)
def test_settings_check_themselves(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
