"""What a trial is given: prepared in one way, with every check, and what several share made once."""

from typing import get_args

import numpy as np
import pytest

from degan_search.data import proxies
from degan_search.settings.methods import METHODS
from degan_search.settings.trial import TrialConfig
from degan_search.stages import teacher as teachers
from degan_search.system.errors import UserError
from degan_search.trial import inputs as trial_inputs
from degan_search.trial.inputs import inputs_key

DISTILLING = [name for name, method in METHODS.items() if method.distils and name != "combined"]
OBJECTIVES = get_args(TrialConfig.model_fields["objective"].annotation)


@pytest.mark.parametrize("method", DISTILLING)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_the_oracle_gets_labels_and_only_true_methods_true_images(method, objective, tiny, prepare, true):
    config = tiny({"method": method, "objective": objective, "teacher.check": "digits"})
    inputs = prepare(config)
    assert (inputs.judged_on is not None) == (objective in ("oracle_accuracy", "check_accuracy"))
    uses_true = METHODS[method].source in ("true", "few_true")
    assert (inputs.true_labels is not None) == (METHODS[method].source == "few_true")
    assert (inputs.true_train is not None) == (inputs.true_held_out is not None) == uses_true
    if uses_true:
        assert np.array_equal(inputs.true_train, true.images[true.train])
        assert np.array_equal(inputs.true_held_out, true.images[true.held_out])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teacher.network": "vgg"}, "unknown classifier 'vgg'"),
        ({"gan.batch_size": 64}, r"the proxy has 60 images, fewer than gan\.batch_size = 64"),
        ({"method": "zskd", "zskd.images": 1}, "of 1 images leaves"),
        ({"gan.lambda_bn": 2}, r"gan\.lambda_bn = 2 needs a teacher with BatchNorm layers"),
    ],
)
def test_preparing_checks_everything(change, said, tiny, prepare, monkeypatch):
    """Settings, sizes, and what shows in the teacher: no bank is made of what does not fit."""
    monkeypatch.setattr(trial_inputs.banks, "obtain", lambda *_: pytest.fail("a bank was made"))
    with pytest.raises(UserError, match=said):
        prepare(tiny(change))


def test_a_weight_that_the_method_does_not_use_is_no_fault(tiny, prepare):
    assert prepare(tiny({"method": "proxy", "gan.lambda_bn": 2})).bank_proxy_images == 8


def test_images_that_do_not_fit_are_refused_before_a_teacher_trains(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(teachers, "train", lambda *_: pytest.fail("a teacher was trained"))
    for wrong in ({"gan.batch_size": 64}, {"teacher.count": 17}):
        with pytest.raises(UserError, match="fewer than"):
            trial_inputs.load([tiny(), tiny(wrong)], None, tmp_path)


def test_what_several_trials_need_is_loaded_and_trained_once(tiny, tmp_path, monkeypatch):
    short = {"teacher.fit.steps": 4}
    configs = [tiny(short), tiny(short, {"seed": 1}), tiny(short, {"teacher.seed": 1}), tiny(short, {"count": 50})]
    loads, tasks, heard, said, load = [], [], [], [], proxies.load
    monkeypatch.setattr(proxies, "load", lambda *what, **named: loads.append(what) or load(*what, **named))

    def train(task):
        tasks.append(task)
        return task()

    loaded = trial_inputs.load(configs, None, tmp_path, "cpu", said.append, heard.append, train)
    assert len(loads) == 2 + 2  # two proxies and two sets of true images
    assert len(tasks) == 2
    assert heard == []  # of several that train elsewhere, none reports
    assert said == ["Loading images", "Loading digits", "Training 2 teachers"]
    first, same, other, fewer = loaded
    assert [one.config for one in loaded] == configs
    assert first.proxy is same.proxy is other.proxy
    assert len(fewer.proxy.images) == 50
    assert first.teacher is same.teacher is fewer.teacher
    assert first.true is same.true
    assert first.teacher.hash != other.teacher.hash
    again = trial_inputs.load(configs[:1], None, tmp_path, report=heard.append)
    assert again[0].teacher == first.teacher  # from the cache
    alone = trial_inputs.load(configs[2:3], None, tmp_path / "other", report=heard.append, train=pytest.fail)
    assert alone[0].teacher == other.teacher  # one alone trains here, and is reported
    assert [progress.step for progress in heard][-1] == 4


def test_new_classes_that_one_of_several_teachers_knows_are_refused(tiny, store):
    new = {"task": "incremental", "method": "finetuning", "proxy": "digits/[5-9]"}
    fits, known = tiny(new, {"teacher.dataset": "digits/[0-4]"}), tiny(new)
    assert len(trial_inputs.load([fits], None, store)) == 1
    with pytest.raises(UserError, match="are classes of 'digits' already"):
        trial_inputs.load([fits, known], None, store)


def test_trials_share_inputs_unless_they_need_others():
    base = TrialConfig()
    weights = base.model_copy(update={"gan": base.gan.model_copy(update={"lambda_e": 3.0}), "seed": 9})
    assert inputs_key(weights) == inputs_key(base)
    assert inputs_key(base.model_copy(update={"gan": base.gan.model_copy(update={"lr": 0.1})})) == inputs_key(base)
    others = [{"proxy": "digits"}, {"count": 10}, {"method": "true"}, {"objective": "oracle_accuracy"}]
    assert len({inputs_key(base.model_copy(update=change)) for change in [{}, *others]}) == 5
