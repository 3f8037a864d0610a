"""Keeps what could name a patient out of the page: file names and folders, wherever a text carries them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

GENERIC_NAMES = frozenset({"", "image", "label map", "fixed", "moving", "mask", "scan"})
SUFFIXES = r"(?:nii|nrrd|nhdr|mha|mhd|dcm|ima|img|hdr|tfm|txt|mat|h5|csv|tre|html)"
FOLDER = re.compile(r"""(?<![\w.])(?:[A-Za-z]:[\\/]|\\\\|~[\w.-]*[\\/]|\.{1,2}[\\/]|[\\/])[^\s'"<>|,;()\[\]]+""")
WEIGHTS = (".safetensors", ".pth", ".pt")  # say what made the result, and name no patient: only their folder goes
FILE = re.compile(rf"""[^\s'"<>|,;:()\[\]]+\.{SUFFIXES}(?:\.gz)?\b""", re.IGNORECASE)


@dataclass(frozen=True)
class Privacy:
    """Replaces the images' own names (which are file names), and anything that looks like a path, by plain words."""

    names: Mapping[str, str]

    def clean(self, text: str) -> str:
        """Return the text without file names and folders."""
        for name in sorted(self.names, key=len, reverse=True):
            if name.lower() not in GENERIC_NAMES:
                parts = re.split(rf"(?<!\w){re.escape(name)}(?!\w)", text)
                text = self.names[name].join(parts)
        return FILE.sub("[file]", FOLDER.sub(_without_folder, text))


def _without_folder(found: re.Match[str]) -> str:
    name = re.split(r"[\\/]", found.group())[-1]
    return name if name.endswith(WEIGHTS) else "[path]"
