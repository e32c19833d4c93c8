"""How the tests call the command line, and how it refuses."""

import yaml
from typer.testing import CliRunner

from degan_search.cli.main import app

TRIAL = {
    "proxy": "digits",
    "count": 60,
    "teacher": {
        "dataset": "digits",
        "network": "lenet",
        "width": 2,
        "count": 200,
        "fit": {"steps": 20, "batch_size": 16},
    },
    "student": {"network": "lenet", "width": 2},
    "gan": {"width": 2, "latent": 4, "steps": 4, "batch_size": 8},
    "distill": {"steps": 6, "steps_per_epoch": 3, "batch_size": 8, "score_images": 32, "pool": 32},
    "distill_images": {"steps": 6, "batch_size": 8, "batch_of": "used"},
    "bank": {"proxy_images": 8},
}


def call(*arguments):
    return CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}).invoke(app, [*map(str, arguments)])


def refused(*arguments, says=()):
    """Exit code 2 and one line on stderr that holds these parts."""
    result = call(*arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: "), result.stderr
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1
    for part in says:
        assert str(part) in result.stderr, result.stderr


def write(folder, content, name="mine.yaml"):
    (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / name


def nothing_in(folder):
    return not folder.exists() or not any(path.is_file() for path in folder.rglob("*"))
