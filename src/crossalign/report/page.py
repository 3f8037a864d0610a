"""A self-contained page: template, style and script in one file that loads nothing and names no file and no patient."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files

import jinja2

import crossalign
from crossalign.images import Image, LabelMap
from crossalign.output import check_output, whole_file, write_bytes
from crossalign.report.embedding import niivue_notice, niivue_packed, niivue_script

CANVAS = ("volumes.js", "layers.js", "viewer.js")  # ahead of a page's own: a viewer of volumes on one grid
NIIVUE = ("niivue.js",)  # the same for pages with NiiVue, each volume on its own grid
GENERIC_NAMES = frozenset({"", "image", "label map", "fixed", "moving", "mask", "scan"})
SUFFIXES = r"(?:nii|nrrd|nhdr|mha|mhd|dcm|ima|img|hdr|tfm|txt|mat|h5|csv|tre|html)"
FOLDER = re.compile(r"""(?<![\w.])(?:[A-Za-z]:[\\/]|\\\\|~[\w.-]*[\\/]|\.{1,2}[\\/]|[\\/])[^\s'"<>|,;()\[\]]+""")
WEIGHTS = (".safetensors", ".pth", ".pt")  # say what made the result, and name no patient: only their folder is removed
FILE = re.compile(rf"""[^\s'"<>|,;:()\[\]]+\.{SUFFIXES}(?:\.gz)?\b""", re.IGNORECASE)


@dataclass(frozen=True)
class Privacy:
    """Replaces the images' own names (which are file names), and anything that looks like a path, by plain words."""

    names: Mapping[str, str]

    @staticmethod
    def of(images: Mapping[str, Image | LabelMap | None]) -> Privacy:
        """Call each image what it is in the registration, such as 'the fixed image'."""
        return Privacy({image.name: words for words, image in images.items() if image is not None})

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


@dataclass(frozen=True, eq=False)
class Page:
    """One page: `name` names its template and its script; texts may hold file names, which are replaced.

    `context` is what its own template reads besides, `viewer` what its script reads; `scripts` are CANVAS or NIIVUE.
    `title` is the user's own and stays as it is.
    """

    name: str
    method: str
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    settings: Mapping[str, str]
    privacy: Privacy
    context: Mapping[str, object]
    viewer: Mapping[str, object]
    scripts: tuple[str, ...] = CANVAS
    title: str = ""

    def html(self) -> str:
        """Return the page as text: about 1 to 4 MB, with NiiVue 1.1 MB and the volumes."""
        clean = self.privacy.clean
        style = read_part("page.css")
        script = '"use strict";\n' + "\n".join(read_part(name) for name in (*self.scripts, f"{self.name}.js"))
        uses_niivue = self.scripts == NIIVUE
        allowed = [script, niivue_script()] if uses_niivue else [script]
        return (
            environment(clean)
            .get_template(f"{self.name}.html.j2")
            .render(
                method=clean(self.method),
                reasons=[clean(text) for text in self.reasons],
                warnings=[clean(text) for text in self.warnings],
                settings=[(clean(str(key)), clean(str(value))) for key, value in self.settings.items()],
                crossalign_version=crossalign.__version__,
                date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                page=self.context,
                viewer=self.viewer,
                title=self.title,
                library=niivue_packed() if uses_niivue else "",
                notice=niivue_notice() if uses_niivue else "",
                style=style,
                script=script,
                style_hash=content_hash(style),
                script_hashes=" ".join(f"'{content_hash(text)}'" for text in allowed),
            )
        )


def write_page(path: str | os.PathLike[str], make: Callable[[], Page], overwrite: bool = False) -> None:
    """Write the page that `make` returns; the file appears whole or not at all. Raises OutputError, ahead of `make`."""
    check_output(path, overwrite)
    content = make().html().encode("utf-8", "replace")
    with whole_file(path, overwrite) as partial:
        write_bytes(content, partial)


def read_part(name: str) -> str:
    """Read a file of the templates' folder, with bare line feeds, as browsers hash it."""
    text = files("crossalign.report").joinpath("templates", name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


def content_hash(text: str) -> str:
    """Return the hash by which a page's content security policy allows one script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def environment(clean: Callable[[str], str]) -> jinja2.Environment:
    """Make templates that escape what they are given, refuse what they are not, and can clean a text."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clean"] = clean
    return environment
