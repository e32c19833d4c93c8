"""Short trials with much to save, and the state that one has at a stage."""

from degan_search.settings.methods import METHODS
from degan_search.training.loop import progress_of
from degan_search.trial.trial import Trial
from tests.trial.tiny_trials import DISTILLING, DROPOUT

FITTING = {"steps": 12, "steps_per_epoch": 3}  # four events, the last of which in the second phase
SHORT = {"distill": FITTING, "distill_images": FITTING, "incremental": FITTING, "gan.steps": 6}
NEW = {"task": "incremental", "teacher.dataset": "digits/[0-4]", "proxy": "digits/[5-9]"}
SGD = {"distill.profile": "sgd_augmented", "distill.lr": 0.01, "distill.milestones": [0.3, 0.6]}
RIVAL = {"gan.lambda_s": 3, "student.network": "alexnet_half"}  # with dropout, in the GAN's training, too
MIXED = {"distill.mix_proxy": 0.25}
POOL = {"distill.pool": 16, "distill.pool_refresh": 0.5}  # two batches, four times
PROBED = {"probe.at": [2, 5, 6]}
NORMED = {"teacher": {"network": "alexnet", "width": 2, "fit.steps": 10, "count": 100}, "bank.generators": []}
CASES = {
    **{name: {"method": name} for name in DISTILLING},
    **{f"new {name}": NEW | {"method": name} for name, method in METHODS.items() if method.rule},
    "everything": SGD | RIVAL | MIXED | POOL | PROBED | {"method": "extended", "gan.lambda_e": 1},
    "mosaic with dropout": DROPOUT | {"method": "mosaic", "mosaic.steps": 3},
    "pool": POOL,
    "rungs": PROBED | RIVAL,
    "a rung before the first step": {"probe.at": [0, 3]},
    "one image in a batch": {"distill.batch_size": 1, "distill.mix_proxy": 0.5, "distill.pool": 3},
    "patience": {"distill": {"steps": None, "steps_per_epoch": 2, "patience": 2, "epochs": 4}},
    "images, augmented": {"method": "proxy", "distill_images.profile": "sgd_augmented", "distill_images.lr": 0.01},
    "statistics": NORMED | {"gan.lambda_bn": 5},
    "new, recalled": NEW | MIXED | POOL | {"gan.lambda_s": 3},
    "new, adam": NEW | {"method": "lwf_mc", "incremental.optimiser": "adam", "incremental.augment": False},
    "new, aligned": NEW | {"method": "proxy", "incremental.scaling": "aligned"},
    "new, dropout": NEW | NORMED | {"teacher.dataset": "digits/[0-4]", "method": "degan"},
    "zskd in one batch": {"method": "zskd", "zskd.batch_size": 90, "zskd.iterations": 6},
}


def state_at(stage, config, inputs):
    """Return the state of a new trial at the first event of a stage."""
    trial = Trial(config, inputs)
    for event in progress_of(trial):
        if event.stage == stage:
            return event, trial.state_dict()
    raise AssertionError(stage)
