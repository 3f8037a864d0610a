"""Weights that come in the package: names to files, how they are run, and what their cards say."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from crossalign.errors import InputError, WeightsError
from crossalign.input import check_regular_file, read_text
from crossalign.models.cascade_settings import Calibration, CascadeSettings

PACKAGE = Path(str(files("crossalign.models")))
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Shipped:
    """Files of a cascade's stages as they run, how to run them, and the one (from 1) that training goes on from."""

    files: tuple[str, ...]
    settings: CascadeSettings = field(default_factory=CascadeSettings)
    begin: int = 1


IMAGE = tuple(f"correspondence-image-{number}.safetensors" for number in (1, 2, 3))
FEW = (*IMAGE[:2], "correspondence-few-shot-1.safetensors")
LABEL = tuple(f"correspondence-label-{number}.safetensors" for number in (1, 2, 3))

# Lines through 120 registrations of 40 simulated pairs (seed 77), four fifths kept: the cards say how.
CALIBRATED: dict[str, Calibration] = {
    "correspondence-few-shot": Calibration(base_mm=1.74, per_dispersion=0.0, per_network=0.92, threshold_mm=5.7),
    "correspondence-image": Calibration(base_mm=1.93, per_dispersion=0.0, per_network=0.88, threshold_mm=5.6),
    "correspondence-label": Calibration(base_mm=1.94, per_dispersion=0.0, per_network=0.86, threshold_mm=6.2),
}


def _run(name: str) -> CascadeSettings:
    # The second pass mends far starts; along the body it would undo the caution of the first (docs/experiments.md).
    calibration = CALIBRATED.get(name)
    return CascadeSettings(max_passes=2, later_share=0.75, later_share_z=0.0, calibration=calibration, together=True)


# The first is the default method. After a change of weights: cd weights && sha256sum *.safetensors > SHA256SUMS
SHIPPED: dict[str, Shipped] = {
    "correspondence-few-shot": Shipped(FEW, _run("correspondence-few-shot"), begin=3),
    "correspondence-image": Shipped(IMAGE, _run("correspondence-image")),
    "correspondence-label": Shipped(LABEL, _run("correspondence-label"), begin=3),
}

# The first is the default. After a change of weights: cd weights && sha256sum *.safetensors > SHA256SUMS
FUSION_SHIPPED: dict[str, str] = {
    "dcfb-compact": "dcfb-compact.safetensors",
    "dcfb-compact-2d": "dcfb-compact-2d.safetensors",
}


def shipped_fusion_names() -> tuple[str, ...]:
    """Names of the shipped fusion networks; the first is the default."""
    return tuple(FUSION_SHIPPED)


def shipped_fusion_path(name: str) -> Path:
    """File of a shipped fusion network; raises InputError for an unknown name."""
    if name not in FUSION_SHIPPED:
        raise InputError(f"no shipped fusion weights are called '{name}': there are {', '.join(FUSION_SHIPPED)}")
    return PACKAGE / "weights" / FUSION_SHIPPED[name]


def shipped_names() -> tuple[str, ...]:
    """Names of the shipped cascades."""
    return tuple(SHIPPED)


def shipped_stage_paths(name: str) -> tuple[Path, ...]:
    """Files of a shipped cascade's stages, in order; raises InputError for an unknown name."""
    return tuple(PACKAGE / "weights" / file for file in _shipped(name).files)


def shipped_settings(name: str) -> CascadeSettings:
    """How a shipped cascade is run; raises InputError for an unknown name."""
    return _shipped(name).settings


def stage_path(spelled: str) -> Path:
    """Return the file of one stage: a path as it is, a shipped name, or one of several stages as NAME:2.

    A name alone means the stage that training goes on from. Raises InputError for a stage that there is not.
    """
    name, colon, number = spelled.partition(":")
    if name not in SHIPPED:
        return Path(spelled)
    paths = shipped_stage_paths(name)
    if not colon:
        return paths[_shipped(name).begin - 1]
    if number.isdecimal() and 1 <= int(number) <= len(paths):
        return paths[int(number) - 1]
    choices = " or ".join(f"{name}:{index}" for index in range(1, len(paths) + 1))
    raise InputError(f"'{spelled}' does not name one of the {len(paths)} stages of {name}: write {choices}")


def weight_paths(name: str) -> tuple[Path, ...]:
    """Files of shipped weights, of registration or fusion; raises InputError for an unknown name."""
    if name in shipped_fusion_names():
        return (shipped_fusion_path(name),)
    return shipped_stage_paths(name)


def recorded_sums(folder: Path = PACKAGE / "weights") -> Mapping[str, str]:
    """Read SHA256SUMS: the file names and their SHA-256 in hexadecimal. Raises WeightsError where it is missing."""
    try:
        lines = (folder / SUMS).read_text(encoding="ascii").splitlines()
        rows = [line.split(maxsplit=1) for line in lines if line.strip()]
        return {name.lstrip("*"): digest for digest, name in rows}
    except OSError as error:
        raise WeightsError(f"{SUMS} of the shipped weights is missing: install crossalign again") from error
    except ValueError as error:  # not ASCII, or a line of one word
        raise WeightsError(f"{SUMS} of the shipped weights is damaged: install crossalign again") from error


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_shipped(path: Path) -> None:
    """Raise WeightsError where a file that came in the package is missing or is not what was packed."""
    if not path.is_file():
        raise WeightsError(f"{path.name}: the shipped weights are missing: install crossalign again")
    check_regular_file(path, WeightsError)
    expected, got = recorded_sums(path.parent).get(path.name), sha256_of(path)
    if got != expected:
        raise WeightsError(
            f"{path.name}: the shipped weights are damaged (SHA-256 {got[:12]}..., expected "
            f"{'none on record' if expected is None else expected[:12] + '...'}): install crossalign again"
        )


def model_card(name: str) -> str:
    """Return the model card (Markdown) of shipped weights; raises InputError for an unknown name."""
    if name not in (*shipped_names(), *shipped_fusion_names()):
        known = ", ".join((*shipped_names(), *shipped_fusion_names()))
        raise InputError(f"no shipped weights are called '{name}': there are {known}")
    return read_text(PACKAGE / "cards" / f"{name}.md", WeightsError)


def card_facts(name: str) -> Mapping[str, str]:
    """Return the rows of the card's first table, by their first column: network, data, command, licence, ..."""
    facts: dict[str, str] = {}
    for line in model_card(name).split("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 2 and cells[0] and not set(cells[0]) <= set("-: "):
            facts[cells[0]] = cells[1]
    return facts


def _shipped(name: str) -> Shipped:
    if name not in SHIPPED:
        raise InputError(f"no shipped weights are called '{name}': there are {', '.join(SHIPPED) or 'none'}")
    return SHIPPED[name]
