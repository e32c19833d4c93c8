"""The project's documents as the tests read them: their links, their code, their commands."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r'\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)(?: "(?P<title>[^"]*)")?\)')
EXAMPLE = re.compile(r"(?<![^\s(])`[^`\n]*\]\([^`\n]*`")
"""A link in backticks, which leads nowhere; a link whose text is in backticks is none."""
ASSIGNMENT = re.compile(r"[A-Z_]+=")
WRAPPERS = {"taskset": 3, "nice": 3}
"""Programs that start another one, and how many words are their own."""


def documents() -> list[Path]:
    """Return every document of the project: the root's, those of docs/, and those beside the deployment files."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md")])


def name(document: Path) -> str:
    """Return a document's path from the root, which names its test."""
    return str(document.relative_to(ROOT))


@dataclass(frozen=True)
class Link:
    """A link to a file: where it leads, its `#` part if any, and the name that the line holds (the link's title)."""

    target: str
    anchor: str
    symbol: str | None

    def path(self, document: Path) -> Path:
        """Return the file that a document links to."""
        return (document.parent / self.target).resolve() if self.target else document


def links(text: str) -> Iterator[Link]:
    """Yield the links to files of this project; those that begin with a scheme lead elsewhere."""
    for found in LINK.finditer(EXAMPLE.sub("", FENCE.sub("", text))):
        if not re.match(r"[a-z]+:", found["target"]):
            target, _, anchor = found["target"].partition("#")
            yield Link(target, anchor, found["title"])


def headings(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@cache
def definitions(file: Path) -> dict[str, int]:
    """Return the names that a Python file defines, `Class.field` for what is inside, each with its line from 1."""
    found: dict[str, int] = {}

    def visit(body: Sequence[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.setdefault(prefix + node.name, node.lineno)
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    for part in ast.walk(target):
                        if isinstance(part, ast.Name):
                            found.setdefault(prefix + part.id, node.lineno)

    visit(ast.parse(file.read_text()).body, "")
    return found


def line_of(file: Path, symbol: str) -> int | None:
    """Return the line, from 1, on which a file defines a name, or else the first that contains it; None if none."""
    if file.suffix == ".py" and (line := definitions(file).get(symbol)):
        return line
    numbers = (number for number, line in enumerate(file.read_text().splitlines(), 1) if symbol in line)
    return next(numbers, None)


def defined_in(symbol: str) -> list[Path]:
    """Return the Python files of package and analysis that define a name; if none does, those of the tests."""
    for folders in (("degan_search", "analysis"), ("tests",)):
        files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
        if found := [file for file in files if symbol in definitions(file)]:
            return found
    return []


def code(text: str) -> list[str]:
    """Return what stands in single backticks, outside of fenced blocks."""
    return [" ".join(found.split()) for found in INLINE.findall(FENCE.sub("", text))]


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [body for named, body in FENCE.findall(text) if named == language]


def shell_lines(text: str) -> list[list[str]]:
    """Return the words of each command in the fenced blocks of shell, without comments."""
    lines = "\n".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def program(words: Sequence[str]) -> list[str]:
    """Return a command from its program's name on, without variables, paths and programs that only start it."""
    rest = list(words)
    while rest and (ASSIGNMENT.match(rest[0]) or rest[0] in WRAPPERS):
        rest = rest[WRAPPERS.get(rest[0], 1) :]
    if rest:
        rest[0] = Path(rest[0]).name
    return ["pytest", *rest[3:]] if rest[:3] == ["python", "-m", "pytest"] else rest
