"""Print what a source tree looks like, in figures: `python studies/house.py [src/crossalign] [--top 10] [--pairs 20]`.

Modules and their lengths, the longest functions, names defined in more than one module, duplicated code, public names
that nothing uses, and words of the old vocabulary. Only the standard library is used. The repository is the nearest
folder above the tree that has a `pyproject.toml` or `tests`; its tests, scripts and docs count as users of the package.
"""

from __future__ import annotations

import argparse
import ast
import io
import keyword
import re
import statistics
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

SHORT, LONG = 50, 300  # lines of a module
WINDOW = 6  # lines of code that two places must share
# Words that the package gave a sense of its own: the forms of one word, or a phrase with _ for the space. Some are
# plain English or standard elsewhere ("start", "share", torch's "view"), so that zero is not the aim for each.
# fmt: off
OLD_WORDS = (
    "bank banks", "canvas canvases", "scene scenes", "doubt doubts doubting", "signs", "together", "later_share",
    "header_turn header_turns", "start starts", "spread spreads", "share shares", "exchange exchanges exchanged",
    "think thinks", "waves", "gland glands", "recombine recombined recombiner", "mixing", "look looks looked",
    "place places", "told tell tells", "climb climbs climbing", "ascent ascents", "loud", "chosen", "gone",
    "wish wishes", "price", "home", "body bodies", "paint paints painted", "lattice lattices", "beginning",
    "running runs", "listing", "demonstrating", "applying", "shown", "view views", "brought", "kept", "taken", "seen",
    "spared", "zoo",
)
# fmt: on
# Decorators that hand a function to something that calls it.
REGISTERING = {"command", "callback", "default", "register", "filter", "fixture"}
TEXT_TOKENS = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
LAYOUT_TOKENS = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.COMMENT}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef
CodeLine = tuple[int, tuple[str, ...]]  # a line's number, and its tokens


@dataclass(frozen=True)
class Module:
    """A source file: its path from the tree's parent, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed text."""
        return ast.parse(self.text)

    @cached_property
    def tokens(self) -> list[tokenize.TokenInfo]:
        """The text's tokens."""
        return list(tokenize.generate_tokens(io.StringIO(self.text).readline))

    @cached_property
    def prose_lines(self) -> set[int]:
        """Numbers of the lines of imports, docstrings and `__all__`: neither code to compare nor uses of a name."""
        nodes: list[ast.AST] = [node for node in self.tree.body if "__all__" in assigned_names(node)]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                nodes.append(node)
            elif isinstance(node, ast.Module | Definition) and ast.get_docstring(node, clean=False) is not None:
                nodes.append(node.body[0])
        return {number for node in nodes for number in lines_of(node)}

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return Path(self.path).stem

    @property
    def length(self) -> int:
        """Lines, blank ones and comments included."""
        return len(self.text.splitlines())


def read_modules(tree: Path) -> list[Module]:
    """Read every Python file below a folder, in order of their paths."""
    files = sorted(path for path in tree.rglob("*.py") if "__pycache__" not in path.parts)
    return [Module(path.relative_to(tree.parent).as_posix(), path.read_text(encoding="utf-8")) for path in files]


def lines_of(node: ast.AST) -> range:
    """Return the numbers of a node's lines, decorators aside."""
    first: int = getattr(node, "lineno")  # noqa: B009 (not every node has lines: of those, only these are asked for)
    return range(first, (getattr(node, "end_lineno", None) or first) + 1)


def assigned_names(node: ast.stmt) -> list[str]:
    """Return the names that a statement assigns to."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def decorator_names(node: Definition) -> set[str]:
    """Return the last parts of the names of a definition's decorators."""
    called = (item.func if isinstance(item, ast.Call) else item for item in node.decorator_list)
    return {ast.unparse(item).rpartition(".")[2] for item in called}


# Sizes


def size_lines(modules: list[Module]) -> list[str]:
    """Say how many modules (package markers aside) and lines there are."""
    lengths = [module.length for module in modules if module.name != "__init__"]
    code = sum(len(code_lines(module)) for module in modules)
    return [
        f"modules                 {len(lengths)} (and {len(modules) - len(lengths)} package markers)",
        f"lines                   {sum(module.length for module in modules)}",
        f"lines of code           {code} (blank lines, comments, imports, docstrings, lone names and brackets aside)",
        f"median of a module      {statistics.median(lengths) if lengths else 0:g}",
        f"modules under {SHORT} lines  {sum(length < SHORT for length in lengths)}",
        f"modules over {LONG} lines  {sum(length > LONG for length in lengths)}",
    ]


@dataclass(frozen=True)
class FunctionLength:
    """A function, its lines, those outside the options declared in it, and whether there are any."""

    where: str
    lines: int
    outside_options: int
    declares_options: bool


def function_lengths(modules: list[Module]) -> list[FunctionLength]:
    """Measure every function from `def` to its end, the longest outside declared options first."""
    found = []
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, Function):
                commands = [
                    inner for inner in ast.walk(node) if isinstance(inner, Function) and _declares_options(inner)
                ]
                lines, declared = len(lines_of(node)), sum(len(_signature(inner)) for inner in commands)
                where = f"{module.path}:{node.lineno} {node.name}"
                found.append(FunctionLength(where, lines, lines - declared, bool(commands)))
    return sorted(found, key=lambda item: (-item.outside_options, -item.lines, item.where))


def _signature(node: Function) -> range:
    return range(node.lineno, node.body[0].lineno)


def _declares_options(node: Function) -> bool:
    hints = " ".join(ast.unparse(item) for item in ast.walk(node.args) if isinstance(item, ast.Attribute))
    return "command" in decorator_names(node) or bool(re.search(r"\b(Option|Argument|Parameter)\b", hints))


# Names


def module_level_names(module: Module) -> dict[str, ast.stmt]:
    """Return the public classes, functions and constants that a module defines itself, by name."""
    found: dict[str, ast.stmt] = {}
    waiting: list[ast.stmt] = list(module.tree.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.If | ast.Try):
            waiting += [*node.body, *node.orelse]
        for name in [node.name] if isinstance(node, Definition) else assigned_names(node):
            if not name.startswith("_"):
                found.setdefault(name, node)
    return found


def repeated_names(modules: list[Module]) -> dict[str, list[str]]:
    """Return the public names that more than one module defines, with the modules."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        for name in module_level_names(module):
            places[name].append(module.path)
    return {name: paths for name, paths in sorted(places.items()) if len(paths) > 1}


def repeated_file_names(modules: list[Module]) -> dict[str, list[str]]:
    """Return the names that several modules or packages have, with their paths."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        folder = Path(module.path).parent
        if module.name == "__init__":
            places[folder.name].append(f"{folder.as_posix()}/")
        elif module.name != "__main__":
            places[module.name].append(module.path)
    return {name: paths for name, paths in sorted(places.items()) if len(paths) > 1}


# Duplicated code


def code_lines(module: Module) -> list[CodeLine]:
    """Return the lines that hold code: no blank lines, comments, imports, docstrings, and no lone name or brackets."""
    by_line: dict[int, list[str]] = defaultdict(list)
    for token in module.tokens:
        if token.type not in LAYOUT_TOKENS and token.start[0] not in module.prose_lines:
            by_line[token.start[0]].append(token.string)
    return [
        (number, tuple(tokens))
        for number, tokens in sorted(by_line.items())
        if sum(token not in "()[]{},:" for token in tokens) > 1
    ]


@dataclass(frozen=True)
class Duplicate:
    """Two places that share code, as paths with line ranges, and how many lines of code they share."""

    lines: int
    first: str
    second: str


def duplicates(modules: list[Module], renamed: bool = False, window: int = WINDOW) -> list[Duplicate]:
    """Find pairs of places that share `window` or more lines of code, the longest first.

    With `renamed` an identifier counts by the order in which it first occurs in the window, so that a copy with other
    names is found too; fields of classes and parameters of functions, which then all look alike, are left out.
    """
    code = {module.path: _lines_to_compare(module, renamed) for module in modules}
    places: dict[tuple[tuple[str, ...], ...], list[tuple[str, int]]] = defaultdict(list)
    for path, lines in code.items():
        for index in range(len(lines) - window + 1):
            part = tuple(tokens for _, tokens in lines[index : index + window])
            places[_without_names(part) if renamed else part].append((path, index))
    pairs = {pair for group in places.values() for pair in combinations(group, 2)}
    found = []
    for (a, i), (b, j) in pairs:
        overlap = a == b and abs(i - j) < window
        if overlap or ((a, i - 1), (b, j - 1)) in pairs:  # the latter: part of a longer one
            continue
        shared = window
        while ((a, i + shared - window + 1), (b, j + shared - window + 1)) in pairs:
            shared += 1
        found.append(Duplicate(shared, _span(a, code[a], i, shared), _span(b, code[b], j, shared)))
    return sorted(found, key=lambda item: (-item.lines, item.first, item.second))


def _lines_to_compare(module: Module, renamed: bool) -> list[CodeLine]:
    left_out: set[int] = set()
    for node in ast.walk(module.tree) if renamed else ():
        if isinstance(node, Function):
            left_out |= set(_signature(node))
        elif isinstance(node, ast.ClassDef):
            left_out |= {line for item in node.body if isinstance(item, ast.AnnAssign) for line in lines_of(item)}
    return [line for line in code_lines(module) if line[0] not in left_out]


def _span(path: str, lines: list[CodeLine], index: int, count: int) -> str:
    return f"{path}:{lines[index][0]}-{lines[index + count - 1][0]}"


def _without_names(part: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    order: dict[str, str] = {}

    def plain(token: str) -> str:
        known = keyword.iskeyword(token) or not token.isidentifier()
        return token if known else order.setdefault(token, f"${len(order)}")

    return tuple(tuple(plain(token) for token in line) for line in part)


# Names that nothing uses


def unused_names(modules: list[Module], tests: str, others: str) -> tuple[list[str], list[str]]:
    """Return the public functions, classes and methods that nothing names, and those that only tests name.

    A name is used where code of the package, its own body, imports and `__all__` aside, has it as an identifier or as a
    word of a text (some names are looked up), or where `others`, the texts of scripts, templates and docs, have it. Two
    things of one name hide each other.
    """
    used = Counter(word for module in modules for _, word in _words_in_code(module))
    in_tests, in_others = (set(re.findall(r"[A-Za-z_]\w*", text)) for text in (tests, others))
    dead: list[str] = []
    only_tests: list[str] = []
    for module in modules:
        for label, node in _public_definitions(module):
            own = Counter(word for line, word in _words_in_code(module) if line in lines_of(node))
            if used[node.name] == own[node.name] and node.name not in in_others:
                (only_tests if node.name in in_tests else dead).append(f"{module.path}:{node.lineno} {label}")
    return dead, only_tests


def _public_definitions(module: Module) -> Iterator[tuple[str, Definition]]:
    for name, node in module_level_names(module).items():
        if isinstance(node, Definition) and not decorator_names(node) & REGISTERING:
            yield name, node
            methods = (
                [item for item in node.body if isinstance(item, Function)] if isinstance(node, ast.ClassDef) else []
            )
            yield from ((f"{name}.{item.name}", item) for item in methods if not item.name.startswith("_"))


def _words_in_code(module: Module) -> Iterator[tuple[int, str]]:
    """Yield identifiers and the words of texts with their lines, those of imports, docstrings and `__all__` aside."""
    for token in module.tokens:
        if (
            token.type in {tokenize.NAME, *TEXT_TOKENS} - {tokenize.COMMENT}
            and token.start[0] not in module.prose_lines
        ):
            yield from ((token.start[0], word) for word in re.findall(r"[A-Za-z_]\w*", token.string))


# Old vocabulary


def old_words(modules: list[Module], docs: str) -> dict[str, tuple[int, int, int]]:
    """Count each entry of OLD_WORDS in the package's identifiers (every occurrence), in its texts, and in the docs."""
    tokens = [token for module in modules for token in module.tokens]
    names = plain_words(token.string for token in tokens if token.type == tokenize.NAME)
    texts = plain_words(token.string for token in tokens if token.type in TEXT_TOKENS)
    in_docs = plain_words([docs])
    counts = {}
    for entry in OLD_WORDS:
        found = re.compile(rf"\b(?:{'|'.join(entry.split()).replace('_', ' ')})\b").findall
        counts[entry] = len(found(names)), len(found(texts)), len(found(in_docs))
    return counts


def plain_words(texts: Iterable[str]) -> str:
    """Write names and texts as lower-case words: `HeaderTurn`, `header_turn` and `header-turn` all as header turn."""
    joined = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", " | ".join(texts))
    return re.sub(r"[\s_-]+", " ", joined).lower()


# Output


def repository_of(tree: Path) -> Path:
    """Find the repository: the nearest folder above the tree with a pyproject.toml or tests, else the tree's own."""
    above = tree.resolve().parents
    return next((path for path in above if (path / "pyproject.toml").exists() or (path / "tests").is_dir()), above[0])


def report(tree: Path, top: int, pairs: int) -> Iterator[str]:
    """Yield the lines of the report."""
    modules, repository = read_modules(tree.resolve()), repository_of(tree)
    tests = _texts(repository, "tests/**/*.py")
    docs = _texts(repository, "docs/**/*.md", "README.md", "CONTRIBUTING.md")
    scripts = _texts(repository, "benchmarks/**/*.py", "studies/**/*.py", "recipes/**/*.py")
    scripts += _texts(tree, "**/*.j2", "**/*.js")
    yield from size_lines(modules)
    functions = function_lengths(modules)
    yield f"\n# Longest of {len(functions)} functions: lines outside declared options, in all (*: declares options)"
    for item in functions[:top]:
        yield f"{item.outside_options:5}{item.lines:6} {'*' if item.declares_options else ' '} {item.where}"
    repeated = {"Public names": repeated_names(modules), "File names": repeated_file_names(modules)}
    for what, names in repeated.items():
        yield f"\n# {what} that occur in more than one place: {len(names)}"
        yield from (f"{name:26}{', '.join(paths)}" for name, paths in names.items())
    for what, renamed in {"exactly": False, "identifiers aside": True}.items():
        found = duplicates(modules, renamed)
        yield f"\n# Pairs of places that share {WINDOW} or more lines of code, {what}: {len(found)}"
        yield from (f"{item.lines:5}  {item.first}  {item.second}" for item in found[:pairs])
    unused, only_tested = unused_names(modules, tests, docs + scripts)
    for what, listed in {"nothing uses": unused, "only tests use": only_tested}.items():
        yield f"\n# Public functions, classes and methods that {what}: {len(listed)}"
        yield from listed
    counts = old_words(modules, docs)
    yield "\n# Old vocabulary: in identifiers, in texts, in the docs"
    for words, numbers in {**counts, "all": map(sum, zip(*counts.values(), strict=True))}.items():
        yield f"{words:32}" + "".join(f"{number:6}" for number in numbers)


def _texts(repository: Path, *patterns: str) -> str:
    files = (
        path for pattern in patterns for path in sorted(repository.glob(pattern)) if path.name != Path(__file__).name
    )
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path, nargs="?", default=Path("src/crossalign"), help="folder of the package")
    parser.add_argument("--top", type=int, default=10, help="longest functions to list")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of places with shared code to list")
    given = parser.parse_args()
    if not given.tree.is_dir():
        parser.error(f"{given.tree}: no such folder: name the package's, such as src/crossalign")
    for line in report(given.tree, given.top, given.pairs):
        print(line)


if __name__ == "__main__":
    main()
