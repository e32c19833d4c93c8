"""The command line with all its commands, in the order of `--help`."""

import gc

from degan_search.cli import finals, images, init, results, sql, streams, sweep, trial
from degan_search.cli.app import app

COMMANDS = (
    results.table,
    results.evaluate,
    results.best,
    results.regret,
    results.report,
    results.export,
    results.figures,
    sql.sql,
    init.init,
    sweep.sweep,
    sweep.resume,
    finals.finals,
    trial.run,
    trial.incremental,
    sweep.spaces,
    images.generate,
    images.export_student,
    images.check_student,
    images.relatedness,
)
for _command in COMMANDS:
    app.command()(_command)


def main() -> None:
    """Run the command line."""
    streams.make_lasting()
    gc.set_threshold(10_000)  # Python's 700 cost a tenth of a short command, whose objects all stay
    try:
        app()
    finally:
        gc.freeze()  # else Python looks through all that torch and pandas have made once more before it ends
