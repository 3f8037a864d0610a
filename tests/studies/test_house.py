"""The script that measures a source tree: its counts are right on a tree that was made up for it."""

import textwrap
from pathlib import Path

import pytest
from studies.house import (
    Module,
    duplicates,
    function_lengths,
    main,
    module_level_names,
    old_words,
    plain_words,
    read_modules,
    repeated_file_names,
    repeated_names,
    unused_names,
)

SHARED = """
def {name}({a}, {b}):
    {c} = {a} + 1
    if {c} > {b}:
        {c} = {b} * 2
    # a comment, and a blank line

    for index in range({c}):
        {b} += index
    return {c} - {b}
"""
COMMAND = '''
@app.command("train")
def train(
    steps: Annotated[int, typer.Option(help="Steps.")] = 1,
    rate: Annotated[float, typer.Option(help="Rate.")] = 0.1,
) -> None:
    """Train."""
    print(steps)
'''


def module(text: str, path: str = "package/one.py") -> Module:
    return Module(path, textwrap.dedent(text))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = {
        "pyproject.toml": "",
        "src/package/__init__.py": "from package.one import used\n",
        "src/package/one.py": "LIMIT = 1\n\n\ndef used() -> int:\n    return LIMIT\n",
        "src/package/long.py": "x = 1\n" * 301,
        "src/package/inner/__init__.py": "",
        "src/package/inner/one.py": 'LIMIT = 2\n\n\ndef idle() -> None:\n    """Draw a new start."""\n    used()\n',
        "tests/test_one.py": "",
        "docs/page.md": "The header turn of a start.\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "src" / "package"


def test_the_report_of_a_tree(tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["house.py", str(tree)])
    main()
    lines = capsys.readouterr().out.splitlines()
    values = {line[:24].strip(): line[24:] for line in lines}
    assert values["modules"] == "3 (and 2 package markers)"
    assert values["lines"] == str(1 + 5 + 301 + 0 + 6)
    assert values["lines of code"].split()[0] == str(3 + 301 + 2)  # a call without arguments is a lone name
    assert (values["modules under 50 lines"], values["modules over 300 lines"]) == ("2", "1")
    assert "LIMIT                     package/inner/one.py, package/one.py" in lines
    assert "one                       package/inner/one.py, package/one.py" in lines
    assert lines[lines.index("# Public functions, classes and methods that nothing uses: 1") + 1] == (
        "package/inner/one.py:4 idle"
    )
    counts = {line[:32].strip(): line[32:].split() for line in lines}
    assert counts["start starts"] == ["0", "1", "1"]
    assert counts["header_turn header_turns"] == ["0", "0", "1"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["house.py", str(tmp_path / "none")])
    with pytest.raises(SystemExit):
        main()


def test_modules_are_read_in_order_with_paths_from_the_parent(tree: Path) -> None:
    paths = [item.path for item in read_modules(tree)]
    assert paths == sorted(paths)
    assert paths[0] == "package/__init__.py"
    assert repeated_file_names(read_modules(tree)) == {"one": ["package/inner/one.py", "package/one.py"]}


def test_a_package_and_a_module_of_one_name_are_named() -> None:
    modules = [
        module("", "package/mind.py"),
        module("", "package/mind/__init__.py"),
        module("", "package/a/__main__.py"),
    ]
    assert repeated_file_names(modules) == {"mind": ["package/mind.py", "package/mind/"]}


def test_signatures_of_commands_are_outside_the_length_of_functions() -> None:
    (plain, command) = function_lengths([module(COMMAND + "\n\ndef plain(\n    x: int,\n) -> int:\n    return x\n")])
    assert (command.lines, command.outside_options, command.declares_options) == (6, 2, True)
    assert (plain.lines, plain.outside_options, plain.declares_options) == (4, 4, False)


def test_public_names_are_those_that_a_module_defines_itself() -> None:
    names = module_level_names(
        module("""
            import os
            from a import b
            LIMIT, OTHER = 1, 2
            _PRIVATE = 3
            VALUE: int = 4
            if LIMIT:
                def inside() -> None:
                    LOCAL = 5
            class Thing:
                field: int = 6
            """)
    )
    assert list(names) == ["LIMIT", "OTHER", "VALUE", "Thing", "inside"]


def test_a_name_defined_twice_in_one_module_has_one_place() -> None:
    assert repeated_names([module("def a(): ...\ndef a(): ...\n")]) == {}


def test_a_copy_is_found_at_its_full_length() -> None:
    text = SHARED.format(name="f", a="a", b="b", c="c")
    modules = [module(text), module("# first\nimport os\n" + text, "package/two.py")]
    (found,) = duplicates(modules)
    assert (found.lines, found.first, found.second) == (7, "package/one.py:2-10", "package/two.py:4-12")
    (found,) = duplicates(modules, renamed=True)  # the line with the parameters is left out here
    assert (found.lines, found.first) == (6, "package/one.py:3-10")


def test_a_copy_with_other_names_is_found_only_where_names_do_not_count() -> None:
    modules = [
        module(SHARED.format(name="f", a="a", b="b", c="c")),
        module(SHARED.format(name="g", a="u", b="v", c="w"), "package/two.py"),
    ]
    assert duplicates(modules) == []
    assert len(duplicates(modules, renamed=True)) == 1
    swapped = module(SHARED.format(name="g", a="v", b="v", c="w"), "package/two.py")  # two names became one
    assert duplicates([modules[0], swapped], renamed=True) == []


def test_fewer_lines_than_the_window_are_no_duplicate() -> None:
    text = SHARED.format(name="f", a="a", b="b", c="c")
    modules = [module(text), module(text, "package/two.py")]
    assert duplicates(modules, window=7)
    assert duplicates(modules, window=8) == []


def test_fields_of_classes_are_no_duplicates_where_names_do_not_count() -> None:
    fields = ["class {}:"] + [f"    {{}}{n}: int = {n}" for n in range(8)]
    modules = [
        module("\n".join(line.format("A" if "class" in line else "a") for line in fields)),
        module("\n".join(line.format("B" if "class" in line else "b") for line in fields), "package/two.py"),
    ]
    assert duplicates(modules, renamed=True) == []


def test_unused_names() -> None:
    one = module("""
        __all__ = ["recursive", "tested", "looked_up", "documented"]
        def recursive() -> None: recursive()
        def tested() -> None: ...
        def looked_up() -> None: ...
        def documented() -> None: ...
        def called() -> None: ...
        @app.command()
        def command() -> None: ...
        def _private() -> None: ...
        class Thing:
            def method(self) -> None: ...
            def other(self) -> None: self.method()
        """)
    two = module("from package.one import recursive\nHOME = {'looked_up': 1}\nThing()\ncalled()\n", "package/two.py")
    dead, only_tests = unused_names([one, two], "tested()", "see documented")
    assert [item.split()[1] for item in dead] == ["recursive", "Thing.other"]
    assert [item.split()[1] for item in only_tests] == ["tested"]


def test_old_words_are_counted_in_names_and_texts_apart() -> None:
    counts = old_words([module('headerTurn = HEADER_TURN = bank_size  # a bank\n"""Two banks: bankrupt."""\n')], "Bank")
    assert counts["header_turn header_turns"] == (2, 0, 0)
    assert counts["bank banks"] == (1, 2, 1)


def test_names_become_plain_words() -> None:
    assert plain_words(["HeaderTurn", "header_turn", "header-turn"]) == "header turn | header turn | header turn"
