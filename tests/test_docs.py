"""The documentation: code runs or says why not, commands parse, what is named exists. `make docs` checks links."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from crossalign.cli.main import COMMANDS, GROUPS, app, command_app, main

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(
    r"(?P<before>[^\n]*)\n+(?P<indent> *)```(?P<kind>\w+)\n(?P<code>.*?)^ *```$", re.DOTALL | re.MULTILINE
)
NOT_RUN = re.compile(r"<!-- not run: \S.*-->")
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z0-9.-]*|-[a-z])(?![\w-])")
SCRIPTS = ("studies", "recipes", "benchmarks")


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def blocks(page: Path, kind: str) -> list[tuple[str, str]]:
    """Return a page's code blocks of one language, each with the line before it."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [(one["before"], one["code"]) for one in found if one["kind"] == kind]


def runnable(page: Path) -> list[str]:
    """Return the Python blocks that are to be run: those of files that readers make are run by test_docs_extending."""
    return [
        code
        for before, code in blocks(page, "python")
        if not NOT_RUN.search(before) and not re.match(r"# (src|tests)/", code)
    ]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `crossalign demo` and `crossalign simulate` write, and an MRI-PET pair of the tutorial."""
    folder = tmp_path_factory.mktemp("docs")
    assert main(["demo", "--output", str(folder / "crossalign-demo")]) == 0
    assert main(["simulate", "2", "--output", str(folder / "cases")]) == 0
    run_python(runnable(DOCS / "tutorial" / "fuse.md")[:1], folder)
    return folder


def run_python(codes: list[str], folder: Path) -> None:
    """Run blocks one after another in one fresh process, as a reader would; warnings are errors."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(codes)],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=name_of)
def test_python_blocks_run(page: Path, demo: Path) -> None:
    run_python(runnable(page), demo)


def test_the_readme_runs_the_shipped_network() -> None:
    (code,) = runnable(REPOSITORY / "README.md")
    assert "correspondence-label" in code


def test_a_block_that_is_not_run_says_why() -> None:
    for page in PAGES:
        marks = len(re.findall("<!-- not run", page.read_text(encoding="utf-8")))
        assert marks == sum(bool(NOT_RUN.search(before)) for before, _ in blocks(page, "python")), page.name


def commands() -> list[tuple[str, str, str]]:
    """Find every `crossalign COMMAND ...` in shell blocks and code spans: its page, command and text."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        spans = re.findall(r"`([^`]+)`", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE))
        shell = [code.replace("\\\n", " ") for _, code in blocks(page, "sh")]
        for code in [*shell, *(" ".join(span.split()) for span in spans)]:
            for line in code.splitlines():
                groups = "|".join(GROUPS)  # whose commands are of two words
                called = re.findall(rf"(?:^|[\s/])crossalign ((?:{groups}) [a-z-]+|[a-z][a-z-]*)([^|;&#]*)", line)
                found += [(name_of(page), name, rest) for name, rest in called]
    return found


def options() -> dict[str, set[str]]:
    """List the options of each command."""
    return {
        name: {word for one in command_app(name).assemble_argument_collection() for word in one.names}
        | {"--help", "--debug"}
        for name in COMMANDS
    }


def test_commands_and_their_options_exist() -> None:
    found, known = commands(), options()
    assert len(found) > 60
    wrong = [
        f"{page}: crossalign {name} {option}"
        for page, name, rest in found
        for option in (OPTION.findall(rest) if name in known else ["(no such command)"])
        if name not in known or option not in known[name]
    ]
    assert wrong == []


def test_command_lines_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each whole command line of a shell block is read by the command line's own parser; nothing is run."""
    monkeypatch.chdir(REPOSITORY)
    for page in PAGES:
        for _, code in blocks(page, "sh"):
            for line in code.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["crossalign"] and not any("$" in word for word in words):
                    assert app(words[1:]) is not None, f"{name_of(page)}: {line}"


def test_options_named_alone_exist_somewhere() -> None:
    known = {option for one in options().values() for option in one}
    scripts = "\n".join(
        path.read_text(encoding="utf-8") for room in SCRIPTS for path in (REPOSITORY / room).glob("*.py")
    )
    known |= set(re.findall(r"\"(--[a-z][a-z-]*)\"", scripts)) | {"--version", "--strict", "--no-search"}
    for page in PAGES:
        if page.name == "changed-options.md":  # names earlier spellings
            continue
        text = page.read_text(encoding="utf-8")
        named = {word for span in re.findall(r"`(--[^`]+)`", text) for word in OPTION.findall(span)}
        assert {option for option in named if option.startswith("--")} <= known, name_of(page)


def test_scripts_that_are_named_exist() -> None:
    for page in PAGES:
        for path in re.findall(r"(?:studies|recipes|benchmarks)/\w+\.py", page.read_text(encoding="utf-8")):
            assert (REPOSITORY / path).is_file(), f"{name_of(page)}: {path}"


def test_files_and_modules_that_are_named_exist() -> None:
    """Paths of tests, and dotted names of the package, in code spans."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"`(tests/[\w/]+\.py)`", text):
            assert (REPOSITORY / path).is_file(), f"{name_of(page)}: {path}"
        for dotted in re.findall(r"`(crossalign(?:\.\w+)+)`", text):
            names = dotted.split(".")
            folder = REPOSITORY / "src" / "crossalign"
            assert any((folder / names[1]).with_suffix(suffix).exists() for suffix in ("", ".py")), dotted


def test_the_readme_links_to_files_that_exist_and_is_short() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 90
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (REPOSITORY / target).exists(), target


def test_every_room_of_the_package_is_in_the_reference() -> None:
    rooms = {path.parent.name for path in (REPOSITORY / "src" / "crossalign").glob("*/__init__.py")}
    listed = re.findall(r"reference/python/(\w+)\.md", (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    assert set(listed) == rooms - {"cli", "output", "report"} | {"crossalign"}
