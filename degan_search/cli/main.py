"""The command line with all its commands."""

from degan_search.cli import images, launch, results  # noqa: F401  (each adds its commands to the app)
from degan_search.cli.app import app


def main() -> None:
    """Run the command line."""
    app()
