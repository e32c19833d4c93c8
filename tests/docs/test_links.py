"""Every link of a document leads to a file that is there, and to the line that holds the name it gives.

`python tests/docs/test_links.py` puts the right lines in, after code has moved.
"""

import os
import re
import sys
from pathlib import Path

import pytest
from documents import EXAMPLE, FENCE, LINK, ROOT, defined_in, documents, headings, line_of, links, name


@pytest.mark.parametrize("document", documents(), ids=name)
def test_links(document):
    wrong = []
    for link in links(document.read_text()):
        path = link.path(document)
        if not path.exists():
            wrong.append(f"{link.target} is not there{_elsewhere(link.symbol)}")
        elif link.anchor and path.suffix == ".md":
            if link.anchor not in headings(path.read_text()):
                wrong.append(f"{link.target} has no heading #{link.anchor}")
        elif link.anchor:
            if not (link.symbol and re.fullmatch(r"L\d+", link.anchor)):
                wrong.append(f'{link.target}#{link.anchor}: write [text](file#L1 "name"), the name being in that line')
            elif (line := line_of(path, link.symbol)) is None:
                wrong.append(f"{link.target} has no {link.symbol}{_elsewhere(link.symbol)}")
            elif link.anchor != f"L{line}":
                wrong.append(f"{link.symbol} is in line {line} of {link.target}, not {link.anchor}")
    assert not wrong, "\n".join([*wrong, "`python tests/docs/test_links.py` mends lines and moved files"])


def _elsewhere(symbol):
    found = defined_in(symbol) if symbol else []
    return f"; {symbol} is defined in {', '.join(map(name, found))}" if found else ""


def test_files_that_code_cites_are_there():
    cited = re.compile(
        r"\b(?:degan_search|analysis|search_spaces|benchmarks|tests|docs|deploy)/[\w/.-]+\.(?:py|md|yaml|sbatch)\b"
        r"|\b[A-Z]{4,}\.md\b"
    )
    files = [file for folder in ("degan_search", "analysis", "benchmarks") for file in (ROOT / folder).rglob("*.py")]
    files += [*(ROOT / "search_spaces").glob("*.yaml"), *(ROOT / "deploy").iterdir()]
    files += [ROOT / "Makefile", ROOT / "pyproject.toml"]
    assert not [
        f"{name(file)}: {found}"
        for file in files
        for found in cited.findall(file.read_text())
        if not (ROOT / found).exists()
    ]


def test_a_wrong_line_and_a_moved_file_are_mended(tmp_path):
    right = f'[a]({os.path.relpath(ROOT / "tests/docs/documents.py", tmp_path)}#L{{}} "line_of")'
    line = line_of(ROOT / "tests/docs/documents.py", "line_of")
    document = tmp_path / "page.md"
    document.write_text(right.format(1))
    assert mended(document) == right.format(line)
    losses = defined_in("degan_generator_loss")[0]
    document.write_text('[b](gone.py#L3 "degan_generator_loss") [c](https://example.org/x#L3 "y")')
    moved = f"{os.path.relpath(losses, tmp_path)}#L{line_of(losses, 'degan_generator_loss')}"
    assert mended(document) == f'[b]({moved} "degan_generator_loss") [c](https://example.org/x#L3 "y")'
    document.write_text(
        example := '`[d](gone.py#L3 "degan_generator_loss")`\n\n```\n[e](gone.py#L3 "entropy_loss")\n```\n'
    )
    assert mended(document) == example


def mended(document: Path) -> str:
    """Return a document's text with the right line in each link to a name, and the right file where only one has it."""

    def mend(found: re.Match[str]) -> str:
        target, _, anchor = found["target"].partition("#")
        symbol = found["title"]
        if not (symbol and re.fullmatch(r"L\d+", anchor)) or ":" in target:
            return found[0]
        path = (document.parent / target).resolve()
        if not path.exists() or line_of(path, symbol) is None:
            others = defined_in(symbol)
            if len(others) != 1:
                return found[0]
            path, target = others[0], os.path.relpath(others[0], document.parent)
        return f'[{found["text"]}]({target}#L{line_of(path, symbol)} "{symbol}")'

    text, parts, at = document.read_text(), [], 0
    left_alone = sorted(found.span() for pattern in (FENCE, EXAMPLE) for found in pattern.finditer(text))
    for start, end in left_alone:
        if start >= at:
            parts += [LINK.sub(mend, text[at:start]), text[start:end]]
            at = end
    return "".join(parts) + LINK.sub(mend, text[at:])


if __name__ == "__main__":
    for document in documents():
        text = mended(document)
        if text != document.read_text():
            document.write_text(text)
            sys.stdout.write(f"{name(document)} mended\n")
