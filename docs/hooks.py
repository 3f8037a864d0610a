"""What mkdocs adds while it builds the site: the reference, made from the package, and search without a network."""

import ast
import dataclasses
import inspect
import os
import posixpath
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from sysconfig import get_path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

import crossalign
from crossalign.cli.main import COMMANDS, app, function_of
from crossalign.fields import docs_of
from crossalign.models.pretrained import shipped_file, shipped_names

PACKAGE = Path(crossalign.__file__).parent
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py") if path.parent.name not in ("cli", "report"))
CONTENTS = re.compile(r"## Table of Contents\n.*?(?=^\*\*Commands\*\*)", re.DOTALL | re.MULTILINE)
NOTEBOOK_LINK = re.compile(r'href="(?!\w+:)([^"#]+\.(?:md|ipynb))(#[^"]*)?"')
SETTINGS = re.compile(r"^<!-- settings: ([\w.]+)\.(\w+) -->$", re.MULTILINE)
JSON_TYPES = {
    str: "text",
    Path: "text (a path)",
    int: "integer",
    float: "number",
    bool: "true or false",
    NoneType: "null",
}
RESULTS = "<!-- results of the commands -->"
# What the theme loads from another server, and what the site has in its place.
FOREIGN_WORKER, WORKER = "https://unpkg.com/iframe-worker/shim", "javascripts/file-worker.js"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let notebooks find the command line, as where an environment is activated, and compute on one core of the CPU."""
    os.environ["PATH"] = get_path("scripts") + os.pathsep + os.environ["PATH"]
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the package."""
    pages = {"reference/command-line.md": command_line_page(), "reference/python/crossalign.md": python_page("")}
    pages |= {f"reference/python/{room}.md": python_page(room) for room in ROOMS}
    shipped = [name for task in ("registration", "fusion", "recognition") for name in shipped_names(task)]
    pages |= {f"models/{name}.md": shipped_file(name).card.markdown() for name in shipped}
    pages["concepts/glossary.md"] = glossary_page()
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs' names
    """Put tables of settings where a page asks for them, and keep a mean on one line with its deviation."""
    if RESULTS in markdown:
        markdown = markdown.replace(RESULTS, results_tables())
    return SETTINGS.sub(settings_table, markdown).replace(" ± ", "\u00a0±\u00a0")


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Give notebooks working links to pages, which mkdocs resolves in Markdown alone, and a link to the file itself.

    Raises ValueError for a link to a page that does not exist.
    """
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def link(match: re.Match[str]) -> str:
        place = posixpath.join(posixpath.dirname(page.file.src_uri), match[1])
        target = files.get_file_from_path(posixpath.normpath(place))
        if target is None:
            raise ValueError(f"{page.file.src_uri}: links to {match[1]}, which is no page")
        return f'href="{get_relative_url(target.url, page.url)}{match[2] or ""}"'

    name = posixpath.basename(page.file.src_uri)
    source = f'<p><a href="{name}" download>Download this notebook</a> ({name}, without outputs).</p>'
    return NOTEBOOK_LINK.sub(link, html) + source


def glossary_page() -> str:
    """Return the glossary, which stands in ARCHITECTURE.md."""
    text = (Path(__file__).parents[1] / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.partition("\n## Glossary\n")[2].partition("\n| term |")[2]
    return f"# Glossary\n\nOne word, one thing, in code, messages and documentation.\n\n| term |{table}"


def command_line_page() -> str:
    """Return the help of every command as Markdown."""
    text: str = app.generate_docs(heading_level=1)
    return CONTENTS.sub("", text).replace("# crossalign\n", "# Command line\n", 1).replace("```console", "```text")


def python_page(room: str) -> str:
    """Return the reference of one room, or of the package: each public name, documented by its docstring."""
    folder, module = PACKAGE / room, f"crossalign.{room}".rstrip(".")
    parts = [f"# {module}", inspect.getdoc(import_module(module)) or ""]
    for home, name in sorted(public_names(folder, module), key=lambda one: one[1].lower()):
        options = f"{{heading: {name}, toc_label: {name}, show_root_full_path: false}}"
        parts.append(f"::: {home}.{name}\n    options: {options}")
    return "\n\n".join(parts) + "\n"


def public_names(folder: Path, module: str) -> list[tuple[str, str]]:
    """List what the package of a folder makes public: the module that defines each name, and the name."""
    stub = folder / "__init__.pyi"
    source = (stub if stub.exists() else folder / "__init__.py").read_text(encoding="utf-8")
    found = []
    for part in ast.parse(source).body:
        if isinstance(part, ast.ImportFrom):
            home = f"{module}.{part.module}" if part.level else str(part.module)
            found += [(home, one.name) for one in part.names]
    return found


def settings_table(match: re.Match[str]) -> str:
    """Return the fields of a settings class as a table: name, type, default and what each is."""
    kind = getattr(import_module(match[1]), match[2])
    docs = docs_of(kind)
    rows = [
        f"| `{field.name}` | `{_type(field.type)}` | {_default(field)} | {docs.get(field.name, '')} |"
        for field in dataclasses.fields(kind)
    ]
    head = ["| field | type | default | what |", "|---|---|---|---|"]
    return "\n".join([f"### {kind.__name__}", "", f"`{match[1]}`. {inspect.getdoc(kind)}", "", *head, *rows])


def results_tables() -> str:
    """Return the fields of each command's result as tables, and those of the objects in them."""
    kinds = {name: result_kind(name) for name in COMMANDS}
    parts = []
    for name, kind in kinds.items():
        parts += [f"## {name}", "", str(inspect.getdoc(kind)), "", *_fields_table(kind), ""]
    parts += ["## Objects in results", ""]
    for kind in dict.fromkeys(inner for outer in kinds.values() for inner in inner_kinds(outer)):
        parts += [f"### {kind.__name__}", "", str(inspect.getdoc(kind)), "", *_fields_table(kind), ""]
    return "\n".join(parts)


def result_kind(name: str) -> type:
    """Return the dataclass of a command's result: the parameter of the outcome that its function returns."""
    (kind,) = get_args(get_type_hints(function_of(name))["return"])
    return kind


def inner_kinds(kind: type) -> list[type]:
    """List the dataclasses that the fields of one hold, in order, however deep."""
    found = []
    for hint in get_type_hints(kind).values():
        for part in _parts(hint):
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                found += [part, *inner_kinds(part)]
    return list(dict.fromkeys(found))


def _parts(hint: Any) -> list[Any]:
    return [hint, *(part for inner in get_args(hint) for part in _parts(inner))]


def _fields_table(kind: type) -> list[str]:
    docs, hints = docs_of(kind), get_type_hints(kind)
    rows = [f"| `{name}` | {_json_type(hint)} | {docs[name]} |" for name, hint in hints.items()]
    return ["| field | type | what |", "|---|---|---|", *rows]


def _json_type(hint: Any) -> str:
    """Say what JSON has for a Python type."""
    if isinstance(hint, UnionType):
        return " or ".join(_json_type(part) for part in get_args(hint))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (tuple, list):
        return f"array of {_json_type(parts[0])}"
    return "object" if origin is Mapping else JSON_TYPES[hint]


def _type(hint: Any) -> str:
    return str(hint).replace("|", "\\|")


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    return "" if field.default_factory is dataclasses.MISSING else f"`{type(field.default_factory()).__name__}()`"


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001
    """Load the site's own stand-in for a worker; raises ValueError where the theme loads another script than it did."""
    if FOREIGN_WORKER not in output:
        raise ValueError(f"the theme no longer loads {FOREIGN_WORKER}: see what its search needs without a network")
    return output.replace(FOREIGN_WORKER, get_relative_url(WORKER, page.url))


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:  # noqa: ARG001
    """Do the same for the page that stands for missing ones."""
    return output_content.replace(FOREIGN_WORKER, WORKER)
