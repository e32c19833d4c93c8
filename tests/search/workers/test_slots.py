"""How many trials run at a time."""

import pytest

from degan_search.search.run.options import Options
from degan_search.search.workers.slots import fill, slots
from degan_search.system.errors import UserError


@pytest.mark.parametrize(
    ("options", "resources", "fit"),
    [
        ({}, {"CPU": 2}, 2),
        ({"cpus_per_trial": 2}, {"CPU": 5.0}, 2),
        ({"gpus_per_trial": 0.25}, {"CPU": 8, "GPU": 1}, 4),
        ({"gpus_per_trial": 0.25}, {"CPU": 3, "GPU": 1}, 3),
        ({"max_concurrent": 1}, {"CPU": 8}, 1),
        ({"cpus_per_trial": 3}, {"CPU": 2}, None),
        ({"gpus_per_trial": 1}, {"CPU": 2}, None),
        ({"gpus_per_trial": 0.5, "max_concurrent": 1}, {"CPU": 2, "GPU": 0}, None),
    ],
)
def test_slots(options, resources, fit):
    if fit is not None:
        assert slots(Options(**options), resources) == fit
    else:
        with pytest.raises(UserError, match="a trial needs"):
            slots(Options(**options), resources)


@pytest.mark.parametrize(
    ("options", "resources", "full"),
    [
        ({}, {"CPU": 2}, True),
        ({"max_concurrent": 2}, {"CPU": 2}, True),
        ({"max_concurrent": 1}, {"CPU": 2}, False),
        ({"cpus_per_trial": 2, "max_concurrent": 1}, {"CPU": 3}, True),
        ({"gpus_per_trial": 0.5, "max_concurrent": 2}, {"CPU": 8, "GPU": 1}, True),
    ],
)
def test_whether_trials_take_everything(options, resources, full):
    assert fill(Options(**options), resources) == full
