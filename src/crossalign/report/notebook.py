"""The page of a registration within a notebook."""

from __future__ import annotations

import os
from dataclasses import dataclass
from html import escape

from crossalign.arguments import checked
from crossalign.images.conversion import ImageLike, MaskLike, as_image, as_mask
from crossalign.output import whole_file, write_bytes
from crossalign.registration.result import RegistrationResult
from crossalign.report.pages.registration import ReportInput, registration_page

HEIGHT_PX = 900


@dataclass(frozen=True)
class Shown:
    """A page, self-contained: the last value of a notebook's cell is shown; `save` writes it as a file."""

    html: str

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the page; the file appears whole or not at all. Raises OutputError."""
        with whole_file(path, overwrite) as partial:
            write_bytes(self.html.encode("utf-8", "replace"), partial)

    def _repr_html_(self) -> str:
        frame = 'sandbox="allow-scripts" style="width:100%;border:0"'
        return f'<iframe {frame} height="{HEIGHT_PX}" srcdoc="{escape(self.html)}"></iframe>'


@checked("result")
def show(
    result: RegistrationResult,
    fixed: ImageLike,
    moving: ImageLike,
    fixed_mask: MaskLike | None = None,
    moving_mask: MaskLike | None = None,
) -> Shown:
    """Return the report's page of a result, both images before and after; the masks' outlines are drawn in it.

    Raises TypeError for what is no image, ImageError for one that cannot be used.
    """
    report = ReportInput(
        as_image(fixed, "fixed"),
        as_image(moving, "moving"),
        result,
        None if fixed_mask is None else as_mask(fixed_mask, "fixed mask"),
        None if moving_mask is None else as_mask(moving_mask, "moving mask"),
    )
    return Shown(registration_page(report).html())
