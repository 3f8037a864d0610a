"""Arguments of wrong types end in an error that says what was got and what was expected."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import crossalign as ca
from crossalign.arguments import checked, fits, words

REPOSITORY = Path(__file__).resolve().parents[1]


def test_every_public_function_refuses_wrong_types_clearly() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.wrong_types"],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, int, True),
        (np.int64(1), int, True),
        (1.0, int, False),
        (np.float32(1), float, True),
        (1, float, True),
        ("mi", Sequence[ca.Method], False),
        ([1], Sequence[ca.Method], False),
        ((), Sequence[ca.Method], True),
        ("mi", Sequence[str] | str, True),
        ({"a": 1}, Mapping[str, ca.Method], False),
        (None, str | None, True),
        (Path("x"), str | os.PathLike[str], True),
        (b"x", str | os.PathLike[str], False),
    ],
)
def test_a_value_fits_its_annotation(value: object, hint: object, expected: bool) -> None:
    assert fits(value, hint) is expected


def test_the_error_names_function_argument_and_types() -> None:
    @checked("names")
    def listed(names: Sequence[str] | None, count: int = 1) -> int:
        return count

    assert listed(["a"], count=2) == 2
    with pytest.raises(TypeError, match=r"^listed\(\): names: expected a sequence of text or None, got int$"):
        listed(names=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing a required argument: 'names'"):
        listed()  # type: ignore[call-arg]
    assert words(Mapping[str, float]) == "a mapping from text to a number"
    assert words(Literal["keep", "remove"]) == "'keep' or 'remove'"
