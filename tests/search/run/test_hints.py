"""Commands that messages tell to run."""

import shlex
from pathlib import Path

import pytest

from degan_search.search.run import folder as run_folder
from degan_search.search.run.options import Options
from degan_search.system.errors import UserError, command


@pytest.mark.parametrize("name", ["plain", "my run", "it's", "a;b", "$HOME", "a*[b]", "(x)"])
def test_commands_can_be_pasted(name, tmp_path):
    options = Options(storage=Path("my runs"), name=name)
    assert shlex.split(options.resume("--retry-failed")) == [
        "degan-search",
        "resume",
        f"my runs/{name}",
        "--retry-failed",
    ]
    assert shlex.split(command("table", options.folder)) == ["degan-search", "table", f"my runs/{name}"]
    folder = tmp_path / name
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    with pytest.raises(UserError) as caught:
        run_folder.check_new(folder)
    assert shlex.split(str(caught.value).split("`")[1]) == ["degan-search", "resume", str(folder)]


def test_plain_names_stay_as_they_are():
    assert Options(name="first").resume() == "degan-search resume runs/first"
