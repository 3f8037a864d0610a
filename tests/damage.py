"""Damaged copies of files, for tests that a reader refuses or reads rightly what it is given: seeded, bounded."""

from collections.abc import Callable, Iterator

import numpy as np

ODD_VALUES = (
    "",
    "0",
    "-1",
    "nan",
    "inf",
    "1e30",
    "99999999999999999999",
    "1,5",
    "%s%n",
    "../x",
    "a" * 5000,
    "\0",
    "é",
    "(",
)


def damaged(data: bytes, generator: np.random.Generator, count: int = 100) -> Iterator[bytes]:
    """Give copies with flipped bits, cut short, or with a piece overwritten, repeated or left out."""
    kinds: tuple[Callable[[bytearray, np.random.Generator], bytes], ...] = (
        _flipped,
        _cut,
        _overwritten,
        _repeated,
        _left_out,
    )
    for number in range(count):
        yield kinds[number % len(kinds)](bytearray(data), generator)


def edited_lines(text: str, generator: np.random.Generator, count: int = 100) -> Iterator[str]:
    """Give copies of a text of lines with one line dropped, doubled, moved, misspelt, or with an odd word in it."""
    for number in range(count):
        lines = text.split("\n")
        place = int(generator.integers(len(lines)))
        line = lines[place]
        match number % 5:
            case 0:
                del lines[place]
            case 1:
                lines.insert(int(generator.integers(len(lines))), line)
            case 2:
                lines.insert(int(generator.integers(len(lines))), lines.pop(place))
            case 3:
                letter = int(generator.integers(len(line) + 1))
                lines[place] = line[:letter] + line[letter + 1 :]
            case _:
                words = line.split(" ")
                words[int(generator.integers(len(words)))] = str(generator.choice(ODD_VALUES))
                lines[place] = " ".join(words)
        yield "\n".join(lines)


def _flipped(data: bytearray, generator: np.random.Generator) -> bytes:
    for _ in range(int(generator.integers(1, 4))):
        data[int(generator.integers(len(data)))] ^= 1 << int(generator.integers(8))
    return bytes(data)


def _cut(data: bytearray, generator: np.random.Generator) -> bytes:
    return bytes(data[: int(generator.integers(len(data)))])


def _overwritten(data: bytearray, generator: np.random.Generator) -> bytes:
    start = int(generator.integers(len(data)))
    length = min(int(generator.integers(1, 17)), len(data) - start)
    data[start : start + length] = generator.bytes(length) if generator.random() < 0.5 else b"\xff" * length
    return bytes(data)


def _repeated(data: bytearray, generator: np.random.Generator) -> bytes:
    start, stop = sorted(int(value) for value in generator.integers(len(data) + 1, size=2))
    stop = min(stop, start + 1000)
    return bytes(data[:stop] + data[start:stop] + data[stop:])


def _left_out(data: bytearray, generator: np.random.Generator) -> bytes:
    start = int(generator.integers(len(data)))
    return bytes(data[:start] + data[start + int(generator.integers(1, 17)) :])
