"""Transform files of MINC (`.xfm`): linear ones, which map RAS points, one after another."""

import re

import numpy as np

from crossalign.errors import TransformError
from crossalign.images.files.transform_formats.itk import Linear, Matrix
from crossalign.input import excerpt, finite_number

FIRST_LINE = "MNI Transform File"
FLIP = np.diag([-1.0, -1.0, 1.0])  # between RAS and LPS, either way
COMMENT = re.compile(r"^\s*[%#].*$", re.MULTILINE)
ADVICE = "copy it again, or save the transform as an ITK file (.tfm)"


def is_minc(text: str) -> bool:
    """Say whether a text is a transform file of MINC."""
    return text.startswith(FIRST_LINE)


def parse_minc(text: str, name: str) -> list[Linear]:
    """Parse the linear transforms in LPS, those applied last first, as an ITK composite has them.

    Raises TransformError where one is a deformation, or a value is missing or not finite.
    """
    body, last, rest = COMMENT.sub("", text.removeprefix(FIRST_LINE)).rpartition(";")
    if not last or rest.strip():
        raise TransformError(
            f"{name}: its last value does not end with ';': is the file cut off? {ADVICE.capitalize()}"
        )
    sections: list[dict[str, str]] = []
    for statement in body.split(";"):
        key, equals, value = (part.strip() for part in statement.partition("="))
        if not equals or (not sections and key != "Transform_Type"):
            raise TransformError(
                f"{name}: got '{excerpt(statement, 40)}', expected 'Transform_Type = Linear': {ADVICE}"
            )
        if key == "Transform_Type":
            sections.append({})
        if key in sections[-1]:
            raise TransformError(f"{name}: '{excerpt(key, 40)}' stands twice in one transform: {ADVICE}")
        sections[-1][key] = value
    return [_linear(section, name) for section in reversed(sections)]


def _linear(section: dict[str, str], name: str) -> Linear:
    kind = section.pop("Transform_Type")
    if kind != "Linear":
        raise TransformError(f"{name}: holds a transform of the type {excerpt(kind, 40)}, expected Linear, and rigid")
    inverted = section.pop("Invert_Flag", "False")
    numbers = [finite_number(word) for word in section.pop("Linear_Transform", "").split()]
    values = [number for number in numbers if number is not None]
    if section or inverted not in ("True", "False") or len(numbers) != 12 or len(values) != 12:
        raise TransformError(
            f"{name}: expected 'Linear_Transform =' and twelve finite numbers, got {len(values)} of them"
            f"{' and ' + excerpt(', '.join(section), 40) if section else ''}: {ADVICE}"
        )
    top = np.array(values).reshape(3, 4)
    matrix, translation = _invert(top[:, :3], top[:, 3], name) if inverted == "True" else (top[:, :3], top[:, 3])
    return Linear(FLIP @ matrix @ FLIP, FLIP @ translation, np.zeros(3))


def _invert(matrix: Matrix, translation: Matrix, name: str) -> tuple[Matrix, Matrix]:
    try:
        inverse: Matrix = np.linalg.inv(matrix).astype(np.float64)
    except np.linalg.LinAlgError as error:
        raise TransformError(f"{name}: the matrix is not rigid (it has no inverse): {ADVICE}") from error
    return inverse, -(inverse @ translation)
