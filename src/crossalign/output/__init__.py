"""How every file is written: whole or not at all, and never over the user's own unasked."""

from crossalign.output.checks import check_new_folder, check_output, reason
from crossalign.output.partials import PARTIAL, discard_partials
from crossalign.output.whole import whole_file, whole_files, whole_folder, write_bytes, write_text

__all__ = [
    "PARTIAL",
    "check_new_folder",
    "check_output",
    "discard_partials",
    "reason",
    "whole_file",
    "whole_files",
    "whole_folder",
    "write_bytes",
    "write_text",
]
