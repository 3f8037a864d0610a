"""Fusion weights that come in the package: names to files."""

from importlib.resources import files
from pathlib import Path

from crossalign.errors import InputError

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
    return Path(str(files("crossalign.models"))) / "weights" / FUSION_SHIPPED[name]
