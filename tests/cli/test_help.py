"""What a newcomer reads first."""

import pytest

from degan_search.search.space import file as space_file
from tests.cli.calls import call

pytestmark = pytest.mark.usefixtures("elsewhere")
COMMANDS = ("sweep", "run", "table", "spaces")


class TestHelp:
    """What a newcomer reads first."""

    def test_of_the_app(self):
        for result in (call("--help"), call()):
            assert "lambda_e, lambda_d and the proxy" in " ".join(result.output.split())
            assert all(command in result.output for command in COMMANDS)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_of_each_command(self, command):
        result = call(command, "--help")
        assert result.exit_code == 0
        expected = {
            "sweep": [
                "space",
                "--name",
                "--storage",
                "--data-dir",
                "--cpus-per-trial",
                "--gpus-per-trial",
                "--dry-run",
            ],
            "run": ["--out", "--set", "--storage", "--data-dir", "--threads", "config"],
            "table": ["--paper", "--style", "runs"],
            "spaces": ["List the space files"],
        }
        for part in expected[command]:
            assert part in result.output

    def test_no_such_command_or_option(self):
        assert call("sweeep").exit_code == 2
        assert call("sweep", "smoke", "--cpus", "1").exit_code == 2
        assert call("sweep", "smoke", "--cpus-per-trial", "0").exit_code == 2
        assert call("sweep", "smoke", "--gpus-per-trial", "-1").exit_code == 2


def test_spaces_lists_every_shipped_space():
    result = call("spaces")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == space_file.shipped()
    assert all(len(line.split()) > 3 for line in lines)
