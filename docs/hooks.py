"""Pages that mkdocs makes while it builds the site: the command line reference and the model cards."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from crossalign.models.pretrained import shipped_file, shipped_names

COMMAND_LINE = "reference/command-line.md"
INTRODUCTION = """# Command line

The text that `crossalign COMMAND --help` prints, for every command.

"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the package."""
    files.append(File.generated(config, COMMAND_LINE, content=command_line_page()))
    for name in (*shipped_names("registration"), *shipped_names("fusion")):
        files.append(File.generated(config, f"models/{name}.md", content=shipped_file(name).card.markdown()))
    return files


def command_line_page() -> str:
    """Return the command line reference as Markdown: the help of the program and of each of its commands."""
    overview = help_text()
    names = command_names(overview)
    with ThreadPoolExecutor(max_workers=2) as pool:
        texts = dict(zip(names, pool.map(help_text, names), strict=True))
    sections = [f"## crossalign {name}\n\n```text\n{text}```\n" for name, text in texts.items()]
    return INTRODUCTION + f"```text\n{overview}```\n\n" + "\n".join(sections)


def command_names(overview: str) -> list[str]:
    """Return the commands that `crossalign --help` lists under its heading "Commands"."""
    listed = re.split(r"^\W*Commands\b", overview, maxsplit=1, flags=re.MULTILINE)[1]
    return re.findall(r"^[ │|]+([a-z][a-z-]+) {2,}\S", listed, re.MULTILINE)


def help_text(*words: str) -> str:
    """Return what `crossalign [COMMAND] --help` prints at a width of 100 characters."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    called = [sys.executable, "-m", "crossalign", *words, "--help"]
    done = subprocess.run(called, env=environment, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines()) + "\n"
