"""What a result is saved as, by the ending of the file's name, and how a notebook shows it."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

from crossalign.errors import OutputError
from crossalign.images import write_linear, write_transform
from crossalign.output import check_output, whole_file
from crossalign.registration.patient_axes import motion_text
from crossalign.registration.record import write_record
from crossalign.registration.result import VERDICT, RegistrationResult

TEXT, BINARY = (".tfm", ".txt"), (".h5", ".mat")


def save_result(result: RegistrationResult, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write the transform (.tfm, .txt, .h5, .mat: of ITK) or the record (.json); whole or not at all.

    Raises OutputError.
    """
    path = Path(path)
    if path.suffix == ".json":
        write_record(result.to_dict(), path, overwrite)
    elif path.suffix in TEXT:
        write_transform(result.fixed_to_moving, path, overwrite)
    elif path.suffix in BINARY:
        check_output(path, overwrite)
        with whole_file(path, overwrite) as partial:
            write_linear(result.fixed_to_moving.matrix(), partial, "itk")
    else:
        raise OutputError(
            f"{path.name}: a result is saved as a transform (.tfm, .txt, .h5, .mat) or as a record (.json): the moved "
            "image is result.moved(moving, fixed), the page crossalign.show(result, fixed, moving)"
        )


def result_html(result: RegistrationResult) -> str:
    """Return a small table of a result, for notebooks."""
    expected = "not known" if result.expected_sre_mm is None else f"{result.expected_sre_mm:.1f} mm"
    trust = {True: "yes", False: VERDICT, None: "not known"}[result.trusted]
    rows = {
        "method": result.method,
        "motion": motion_text(result),
        "expected SRE": expected,
        "trusted": trust,
        "seconds": f"{result.seconds:.2f}",
    }
    rows |= {f"reason {number}": text for number, text in enumerate(result.reasons, start=1)}
    rows |= {f"warning {number}": text for number, text in enumerate(result.warnings, start=1)}
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in rows.items()
    )
    return f"<table><caption>Registration, fixed points to moving points</caption>{cells}</table>"
