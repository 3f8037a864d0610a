"""Weights that come in the package: names to files."""

from importlib.resources import files
from pathlib import Path

from crossalign.errors import InputError

# Each cascade lists its stages in the order in which they run. The first is the default method.
SHIPPED: dict[str, tuple[str, ...]] = {
    "correspondence-image": ("correspondence-image-1.safetensors",),
}


def shipped_names() -> tuple[str, ...]:
    """Names of the shipped cascades."""
    return tuple(SHIPPED)


def shipped_stage_paths(name: str) -> tuple[Path, ...]:
    """Files of a shipped cascade's stages, in order; raises InputError for an unknown name."""
    if name not in SHIPPED:
        raise InputError(f"no shipped weights are called '{name}': there are {', '.join(SHIPPED) or 'none'}")
    folder = Path(str(files("crossalign.models"))) / "weights"
    return tuple(folder / file for file in SHIPPED[name])
