"""What methods have in common that run over all three axes, or over each axial slice by itself."""

from crossalign.errors import InputError

Axes = tuple[int, ...]  # among 0 z, 1 y, 2 x
ALL_AXES: Axes = (0, 1, 2)


def check_axes(levels: int, axes: Axes) -> None:
    """Raise InputError for less than one level, and for axes that a volume does not have."""
    if levels < 1 or not axes or not set(axes) <= set(ALL_AXES):
        raise InputError(f"expected 1 level or more and axes among 0, 1, 2, got {levels} and {axes}")


def name_over(name: str, axes: Axes) -> str:
    """Name a method: as it is over all axes, with -2d over fewer."""
    return name if len(axes) == len(ALL_AXES) else f"{name}-2d"


def settings_over(axes: Axes) -> dict[str, str]:
    """Say the axes, as text."""
    return {"axes (0 z, 1 y, 2 x)": ", ".join(map(str, axes))}
