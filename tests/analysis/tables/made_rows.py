"""Rows that no trial measured, for the tables' tests."""

RELATED, NOISE = "cifar100/related_90", "noise/uniform"


def mixed(sweep):
    """Finals, a search without finals, a failed cell, and one that was not run, as nothing of the paper's."""
    glyphs = {"teacher.dataset": "glyphs"}
    for seed, accuracy in enumerate((0.70, 0.71, 0.72)):
        settings = glyphs | {"seed": seed, "gan.lambda_e": 0.125}
        sweep.add("under_score", "degan", score=0.5, test=accuracy, settings=settings, seconds=3600.0)
    sweep.add("under_score", "proxy", score=0.5, oracle=0.655, settings=glyphs, seconds=72.0)
    sweep.add("folder:a|b", "degan", state="FAIL", settings=glyphs)
    return sweep.tidy()
