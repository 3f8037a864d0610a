"""Pages that mkdocs makes while it builds the site: the command line reference and the model cards."""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from crossalign.cli.main import app
from crossalign.models.pretrained import shipped_file, shipped_names

CONTENTS = re.compile(r"## Table of Contents\n.*?(?=^\*\*Commands\*\*)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the package."""
    files.append(File.generated(config, "reference/command-line.md", content=command_line_page()))
    for name in (*shipped_names("registration"), *shipped_names("fusion")):
        files.append(File.generated(config, f"models/{name}.md", content=shipped_file(name).card.markdown()))
    return files


def command_line_page() -> str:
    """Return the help of every command as Markdown."""
    text: str = app.generate_docs(heading_level=1)
    return CONTENTS.sub("", text).replace("# crossalign\n", "# Command line\n", 1).replace("```console", "```text")
