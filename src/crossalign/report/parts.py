"""The parts that pages are put together from: templates, styles, scripts, and what a browser checks them by."""

from __future__ import annotations

import base64
import gzip
import hashlib
from importlib.resources import files

import jinja2
import numpy as np
from numpy.typing import NDArray


def part(name: str) -> str:
    """Read a file of the templates' folder, with bare line feeds, as browsers hash it."""
    text = files("crossalign.report").joinpath("templates", name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


def template(name: str) -> jinja2.Template:
    """Load a template that escapes what it is given and refuses what it is not."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def content_hash(text: str) -> str:
    """Return the hash by which a page's content policy lets one script or style in."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def colour_ramp(name: str) -> NDArray[np.uint8]:
    """Return matplotlib's colours of this name, (256, 3), dark first."""
    import matplotlib as mpl

    return np.rint(mpl.colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)


def packed_bytes(values: NDArray[np.uint8]) -> str:
    """Pack bytes as base64 of gzip, without a time stamp."""
    return base64.b64encode(gzip.compress(values.tobytes(), compresslevel=9, mtime=0)).decode()
