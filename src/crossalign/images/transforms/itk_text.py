"""ITK's text transform files, parsed strictly: every line and every number that the named type needs.

ITK itself takes a missing line for the identity, and dies of a short one.
"""

import re

from crossalign.errors import TransformError
from crossalign.images.transforms.itk_types import COMPOSITE, ItkTransform, check_counts, parse_type
from crossalign.input import finite_number, shown

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
                f"{name}, line {number}: got '{shown(line, 40)}', expected a line that begins with one of {expected}, "
                "the first one first: save the transform again"
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
        raise TransformError(f"{name}, line {line}: got '{shown(word, 40)}', expected a finite number: {advice}")
    return value
