"""What the command line prints: results on standard output, one bounded line for each error or warning."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import typer

from crossalign.errors import OutputError
from crossalign.output import reason

LINE_LIMIT = 1000  # characters of an error or a warning
HEAD = 700


def visible(text: str) -> str:
    """Return a text whose control characters, escape sequences and undecodable bytes are spelled out."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(text: str) -> str:
    """Return a message on one line of bounded length: the middle of a long one is left out, its end kept."""
    line = visible(" ".join(text.split()))
    if len(line) <= LINE_LIMIT:
        return line
    return f"{line[:HEAD]} ... {line[HEAD + 5 - LINE_LIMIT :]}"


def print_lines(lines: Sequence[str]) -> None:
    """Print the lines of a result on standard output; raises OutputError where it cannot take them."""
    try:
        for line in lines:
            typer.echo(_encodable(visible(line)))
    except BrokenPipeError:
        raise
    except OSError as error:
        close_output()
        raise OutputError(f"standard output: cannot be written: {reason(error)}") from error


def print_note(kind: str, text: str) -> None:
    """Print `crossalign: KIND: TEXT` on standard error, where there is one."""
    with suppress(OSError, ValueError):
        typer.echo(f"crossalign: {kind}: {one_line(text)}", err=True)


def close_output() -> None:
    """Send the rest of standard output to nowhere: its reader has gone, and Python would complain of it at its end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _encodable(text: str) -> str:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
