"""ITK's text transform files, parsed strictly, and the types of linear 3-D transforms that they name.

ITK itself takes a missing line for the identity, and dies of a short one.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossalign.errors import TransformError
from crossalign.input import excerpt, finite_number

Matrix = NDArray[np.float64]
Numbers = tuple[float, ...]

TYPE_NAME = re.compile(r"(\w+?)_(?:double|float)_(\d+)_(\d+)")
DEFORMATION = re.compile(r"Spline|Displacement|Velocity|Diffeomorphic|Elastic|Polynomial|Wendland")
COMPOSITE = "CompositeTransform"
VERSOR_EXCESS = 1e-3  # a versor of a half turn has length 1, and a little more where it was rounded


class ItkTransform(NamedTuple):
    """One transform of an ITK file: its type without precision and dimension, and its two rows of numbers."""

    kind: str
    parameters: Numbers = ()
    fixed: Numbers = ()


class Linear(NamedTuple):
    """p -> matrix (p - center) + center + translation, mm."""

    matrix: Matrix
    translation: Matrix
    center: Matrix


class _Kind(NamedTuple):
    parameters: int
    fixed: tuple[int, ...]
    to_linear: Callable[[Numbers, Numbers], Linear]


def parse_type(text: str, where: str) -> str:
    """Return the kind of a type such as AffineTransform_double_3_3.

    Raises TransformError, whose message begins with `where`, for a type that is 2-D, a deformation, or unknown.
    """
    parts = TYPE_NAME.fullmatch(text)
    if parts is None:
        raise TransformError(
            f"{where}: got '{excerpt(text, 60)}' as the type of a transform, expected one such as "
            "AffineTransform_double_3_3: save the transform again"
        )
    kind, source, target = parts.groups()
    if DEFORMATION.search(kind):
        raise TransformError(
            f"{where}: holds a deformation ({excerpt(kind)}), expected a rigid transform: save its rigid part alone"
        )
    if (source, target) != ("3", "3"):
        raise TransformError(f"{where}: a {excerpt(source, 8)}-D transform, expected 3-D")
    if kind != COMPOSITE and kind not in KINDS:
        raise TransformError(
            f"{where}: the type {excerpt(kind)} is not read: save the transform as AffineTransform_double_3_3"
        )
    return kind


def check_counts(transform: ItkTransform, where: str) -> None:
    """Raise TransformError where a transform has more or fewer numbers than its type needs."""
    kind = KINDS[transform.kind]
    if len(transform.parameters) != kind.parameters:
        raise TransformError(
            f"{where}: {len(transform.parameters)} Parameters, expected {kind.parameters} for {transform.kind}: "
            "is the file damaged? Save the transform again"
        )
    if len(transform.fixed) not in kind.fixed:
        expected = " or ".join(str(count) for count in kind.fixed)
        raise TransformError(
            f"{where}: {len(transform.fixed)} FixedParameters, expected {expected} for {transform.kind}: "
            "is the file damaged? Save the transform again"
        )


def to_linear(transform: ItkTransform, where: str) -> Linear:
    """Return what a transform does to points; raises TransformError where its numbers cannot be a transform."""
    check_counts(transform, where)
    try:
        return KINDS[transform.kind].to_linear(transform.parameters, transform.fixed)
    except ValueError as error:
        raise TransformError(f"{where}: {error}") from error


def _linear(matrix: Matrix, translation: Numbers = (0.0, 0.0, 0.0), center: Numbers = (0.0, 0.0, 0.0)) -> Linear:
    return Linear(matrix, np.array(translation), np.array(center))


def _affine(p: Numbers, fixed: Numbers) -> Linear:
    return _linear(np.array(p[:9]).reshape(3, 3), p[9:], fixed)


def _euler(p: Numbers, fixed: Numbers) -> Linear:
    (cx, sx), (cy, sy), (cz, sz) = ((math.cos(angle), math.sin(angle)) for angle in p[:3])
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    compute_zyx = len(fixed) == 4 and fixed[3] != 0  # as ITK reads its fourth fixed parameter
    return _linear(z @ y @ x if compute_zyx else z @ x @ y, p[3:6], fixed[:3])


def _versor_matrix(versor: Numbers) -> Matrix:
    """Turn the vector part of a unit quaternion into a rotation."""
    length = math.sqrt(sum(value * value for value in versor))
    if length > 1 + VERSOR_EXCESS:
        raise ValueError(f"its versor has the length {length:.4g}, expected 1 or less: save the transform again")
    x, y, z = (value / max(1.0, length) for value in versor)
    return _quaternion_matrix(x, y, z, math.sqrt(max(0.0, 1 - (x * x + y * y + z * z))))


def _quaternion_matrix(x: float, y: float, z: float, w: float) -> Matrix:
    return np.array(
        [
            [w * w + x * x - y * y - z * z, 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), w * w - x * x + y * y - z * z, 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), w * w - x * x - y * y + z * z],
        ]
    )


def _versor(p: Numbers, fixed: Numbers) -> Linear:
    return _linear(_versor_matrix(p[:3]), p[3:6] or (0.0, 0.0, 0.0), fixed)


def _quaternion(p: Numbers, fixed: Numbers) -> Linear:
    return _linear(_quaternion_matrix(*p[:4]), p[4:], fixed)


def _similarity(p: Numbers, fixed: Numbers) -> Linear:
    return _linear(_versor_matrix(p[:3]) * p[6], p[3:6], fixed)


def _scale_versor(p: Numbers, fixed: Numbers) -> Linear:
    """ITK adds scale and skew to the rotation's matrix; it does not multiply them."""
    matrix = _versor_matrix(p[:3]) + np.diag(np.array(p[6:9]) - 1)
    if len(p) == 15:
        xy, xz, yx, yz, zx, zy = p[9:]
        matrix += np.array([[0, xy, xz], [yx, 0, yz], [zx, zy, 0]])
    return _linear(matrix, p[3:6], fixed)


def _scale(p: Numbers, fixed: Numbers) -> Linear:
    return _linear(np.diag(p), center=fixed)


def _translation(p: Numbers, _fixed: Numbers) -> Linear:
    return _linear(np.eye(3), p)


def _identity(_p: Numbers, _fixed: Numbers) -> Linear:
    return _linear(np.eye(3))


KINDS: dict[str, _Kind] = {
    "AffineTransform": _Kind(12, (3,), _affine),
    "MatrixOffsetTransformBase": _Kind(12, (3,), _affine),
    "Euler3DTransform": _Kind(6, (3, 4), _euler),  # before ITK 4.10 without the order of the angles
    "VersorRigid3DTransform": _Kind(6, (3,), _versor),
    "VersorTransform": _Kind(3, (3,), _versor),
    "QuaternionRigidTransform": _Kind(7, (3,), _quaternion),
    "Similarity3DTransform": _Kind(7, (3,), _similarity),
    "ScaleVersor3DTransform": _Kind(9, (3,), _scale_versor),
    "ScaleSkewVersor3DTransform": _Kind(15, (3,), _scale_versor),
    "ScaleTransform": _Kind(3, (3,), _scale),
    "TranslationTransform": _Kind(3, (0,), _translation),
    "IdentityTransform": _Kind(0, (0,), _identity),
}


FIRST_LINE = "#Insight Transform File"
KEYS = ("Transform", "Parameters", "FixedParameters")
ANNOUNCED = re.compile(r"#Transform \d+\s*")
LINE_BREAK = re.compile(r"\r\n|\n|\r")

_Block = dict[str, tuple[int, str]]  # key -> number of its line, value


def is_itk_text(text: str) -> bool:
    """Say whether a text is an ITK transform file, by its first line, or by its first one that is not a comment."""
    if text.startswith(FIRST_LINE):
        return True
    lines = (line.strip() for line in LINE_BREAK.split(text))
    return next((line for line in lines if line and not line.startswith("#")), "").startswith("Transform:")


def types_named(text: str) -> list[str]:
    """Return the types that a text names, in order; for a file that is too large to be read."""
    return [line[len("Transform:") :].strip() for line in LINE_BREAK.split(text) if line.startswith("Transform:")]


def parse_itk_text(text: str, name: str) -> list[ItkTransform]:
    """Parse the transforms in the order of the file, a composite before its parts.

    Raises TransformError, naming the line, where a line or a number is missing, misspelt or not finite.
    """
    lines = LINE_BREAK.split(text)
    blocks = _blocks(lines, name)
    kinds = [parse_type(value, f"{name}, line {number}") for number, value in (b["Transform"] for b in blocks)]
    if lines[-1].strip():
        raise TransformError(
            f"{name}: does not end with a line break, as ITK's files do: its last number may be cut off. "
            "Copy the file again, or end its last line if it is whole"
        )
    if sum(bool(ANNOUNCED.fullmatch(line)) for line in lines) > len(blocks) or not blocks:
        raise TransformError(f"{name}: is cut off before the line 'Transform:': copy or save it again")
    return [_transform(block, kind, name) for block, kind in zip(blocks, kinds, strict=True)]


def _blocks(lines: list[str], name: str) -> list[_Block]:
    """Gather the lines of each transform; comments and blank lines may stand anywhere."""
    blocks: list[_Block] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, colon, value = line.partition(":")
        key = key.strip()
        if not colon or key not in KEYS or (not blocks and key != KEYS[0]):
            expected = ", ".join(f"'{key}:'" for key in KEYS)
            raise TransformError(
                f"{name}, line {number}: got '{excerpt(line, 40)}', expected a line that begins with one of "
                f"{expected}, the first one first: save the transform again"
            )
        if key == KEYS[0]:
            blocks.append({})
        if key in blocks[-1]:
            raise TransformError(f"{name}, line {number}: a second line '{key}:' of one transform: save it again")
        blocks[-1][key] = (number, value.strip())
    return blocks


def _transform(block: _Block, kind: str, name: str) -> ItkTransform:
    where = f"{name}, line {block['Transform'][0]} ({kind})"
    if kind == COMPOSITE:
        if len(block) > 1:
            raise TransformError(f"{where}: a composite has no Parameters of its own: save the transform again")
        return ItkTransform(kind)
    for key in KEYS[1:]:
        if key not in block:
            raise TransformError(f"{where}: the line '{key}:' is missing: is the file cut off? Save it again")
    transform = ItkTransform(kind, *(_numbers(*block[key], name) for key in KEYS[1:]))
    check_counts(transform, where)
    return transform


def _numbers(line: int, text: str, name: str) -> tuple[float, ...]:
    return tuple(_number(line, word, name) for word in text.split())


def _number(line: int, word: str, name: str) -> float:
    value = finite_number(word)
    if value is None:
        advice = "write numbers with a point, as in 0.5" if "," in word else "save the transform again"
        raise TransformError(f"{name}, line {line}: got '{excerpt(word, 40)}', expected a finite number: {advice}")
    return value
