"""Configurations: the paper's defaults, merging, what a wrong value says, and hashes that last."""

import json
import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from degan_search.settings.resolve import flatten, merge, stable_hash, trial_config
from degan_search.settings.trial import PROFILES, FitConfig, TrialConfig
from degan_search.system.errors import UserError


def test_the_defaults_are_the_papers():
    config = trial_config()
    assert config == TrialConfig()
    gan, distill, images = config.gan, config.distill, config.distill_images
    assert (gan.lambda_e, gan.lambda_d, gan.batch_size, gan.epochs, gan.latent, gan.width) == (0, 5, 2048, 200, 100, 64)
    assert (gan.lr, gan.beta1, gan.beta2, gan.batch_of) == (2e-4, 0.5, 0.999, "set")
    assert (distill.batch_size, distill.lr, distill.beta1, distill.beta2) == (64, 1e-3, 0.5, 0.999)
    assert (distill.temperature, distill.steps_per_epoch, distill.epochs, distill.patience) == (20, 256, 5000, 101)
    assert (images.batch_size, images.batch_of, images.beta1, images.epochs) == (2048, "set", 0.9, 5000)
    assert (config.teacher.fit.epochs, config.teacher.fit.patience, config.teacher.holdout) == (1000, 101, 0.2)


def test_dotted_and_nested_settings_merge_and_later_ones_win():
    base = {"gan": {"steps": 1, "width": 4}, "seed": 0}
    merged = merge(base, {"gan.steps": 2, "teacher": {"fit.lr": 0.5}}, {"gan": {"steps": 3}, "teacher.fit.epochs": 7})
    assert merged == {"gan": {"steps": 3, "width": 4}, "seed": 0, "teacher": {"fit": {"lr": 0.5, "epochs": 7}}}
    assert base == {"gan": {"steps": 1, "width": 4}, "seed": 0}


def test_dotted_and_nested_settings_make_the_same_trial():
    dotted = trial_config({"gan.lambda_e": 1.5, "teacher.fit.lr": 0.01, "bank.generators": [[0, 5], [1, 5]]})
    nested = trial_config(
        {"gan": {"lambda_e": 1.5}, "teacher": {"fit": {"lr": 0.01}}, "bank.generators": [[0, 5], [1, 5]]}
    )
    assert dotted == nested
    assert dotted.gan.lambda_d == 5
    assert dotted.bank.generators == ((0.0, 5.0), (1.0, 5.0))
    assert trial_config(dict(flatten(dotted.model_dump(mode="json")))) == dotted


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lambda_e": 1}, ["unknown key 'lambda_e'", "method", "gan", "teacher"]),
        ({"gan.lamda_e": 1}, ["unknown key 'gan.lamda_e'", "lambda_e", "lambda_d", "batch_size"]),
        ({"teacher.fit.rate": 1}, ["unknown key 'teacher.fit.rate'", "lr", "patience"]),
        ({"gan.lambda_d": -1}, ["gan.lambda_d = -1", "greater than or equal to 0"]),
        ({"gan.lambda_d": float("inf")}, ["gan.lambda_d = inf"]),
        ({"gan.lambda_e": float("nan")}, ["gan.lambda_e = nan"]),
        ({"gan.batch_size": 1}, ["gan.batch_size = 1", "greater than or equal to 2"]),
        ({"gan.steps": 0}, ["gan.steps = 0"]),
        ({"distill.temperature": 0}, ["distill.temperature = 0"]),
        ({"distill.lr": 11}, ["distill.lr = 11"]),
        ({"teacher.holdout": 1.0}, ["teacher.holdout = 1.0", "less than 1"]),
        ({"seed": -1}, ["seed = -1"]),
        ({"seed": "one"}, ["seed = 'one'"]),
        ({"objective": "accuracy"}, ["objective = 'accuracy'", "balanced_agreement", "oracle_accuracy"]),
        ({"probe.at": [3, 3]}, ["probe", "[3, 3]", "ascend"]),
        ({"probe.at": [6, 3]}, ["probe", "[6, 3]", "ascend"]),
        ({"gan": 5}, ["gan = 5"]),
        ({"gan.width.x.y": 5}, ["gan.width = {'x': {'y': 5}}"]),
        ({"method": {"x": {"profile": "paper"}}}, ["method = {'x'"]),
        ({"distill.profile": "mosaic"}, ["distill.profile = 'mosaic'", "'paper'", "'sgd_augmented'"]),
        ({"incremental": {"profile": ["paper"]}}, ["incremental.profile = ['paper']"]),
        ({"distill.milestones": [0.5, 0.5]}, ["distill", "[0.5, 0.5]", "ascend"]),
        ({"teacher.fit.milestones": [0.5, 0.2]}, ["teacher.fit", "[0.5, 0.2]", "ascend"]),
        ({"incremental.milestones": [0.5, 1.0]}, ["incremental.milestones.1 = 1.0", "less than 1"]),
        ({"distill.warm_up": 1.0}, ["distill.warm_up = 1.0"]),
        ({"distill.mix_proxy": 1.0}, ["distill.mix_proxy = 1.0"]),
        ({"gan.lambda_s": -1}, ["gan.lambda_s = -1"]),
        ({"gan.lambda_bn": float("inf")}, ["gan.lambda_bn = inf"]),
        ({"zskd.scales": []}, ["zskd.scales = []"]),
        ({"shots": 0}, ["shots = 0"]),
        ({"task": "learning"}, ["task = 'learning'", "'incremental'"]),
        ({"seed": -1, "gan.width": 0}, ["seed = -1", "gan.width = 0"]),
    ],
)
def test_wrong_settings_are_named_with_what_would_be_right(settings, said):
    with pytest.raises(UserError) as error:
        trial_config(settings)
    for part in said:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


# Profiles

FITS = ("teacher.fit", "distill", "distill_images", "incremental")
SGD_AUGMENTED = {
    "optimiser": "sgd",
    "augment": True,
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "milestones": (0.6, 0.75, 0.9),
    "lr_factor": 0.1,
    "epochs": 200,
}


def fit_of(config, path):
    for name in path.split("."):
        config = getattr(config, name)
    return config


def nested(path, values):
    for name in reversed(path.split(".")):
        values = {name: values}
    return values


@pytest.mark.parametrize("path", FITS)
def test_a_profile_sets_its_settings_and_no_other(path):
    profiled = trial_config({f"{path}.profile": "sgd_augmented"})
    assert trial_config(nested(path, {"profile": "sgd_augmented"})) == profiled
    ours, before = fit_of(profiled, path).model_dump(), fit_of(TrialConfig(), path).model_dump()
    assert ours == before | SGD_AUGMENTED | {"profile": "sgd_augmented"}
    others = [other for other in FITS if other != path]
    assert all(fit_of(profiled, other) == fit_of(TrialConfig(), other) for other in others)


@pytest.mark.parametrize("path", FITS)
def test_the_papers_profile_restores_each_places_own_defaults(path):
    # `epochs`, for one, has another default in each place.
    profiled = {f"{path}.profile": "sgd_augmented"}
    assert trial_config(profiled, {f"{path}.profile": "paper"}) == TrialConfig()
    kept = trial_config({f"{path}.batch_size": 7}, profiled, nested(path, {"profile": "paper", "lr": 0.5}))
    assert fit_of(kept, path) == fit_of(TrialConfig(), path).model_copy(update={"batch_size": 7, "lr": 0.5})


@pytest.mark.parametrize("path", FITS)
def test_what_is_given_with_or_after_a_profile_wins_and_what_came_before_loses(path):
    profiled = {f"{path}.profile": "sgd_augmented"}
    for layers in (
        [{f"{path}.lr": 0.3} | profiled],
        [profiled | {f"{path}.lr": 0.3}],
        [nested(path, {"lr": 0.3, "profile": "sgd_augmented"})],
        [{f"{path}.lr": 0.7}, profiled, {f"{path}.lr": 0.3}],
    ):
        fit = fit_of(trial_config(*layers), path)
        assert (fit.lr, fit.optimiser, fit.epochs) == (0.3, "sgd", 200)
    assert fit_of(trial_config({f"{path}.lr": 0.7}, profiled), path).lr == 0.1
    assert fit_of(trial_config({f"{path}.lr": 0.7}, {f"{path}.patience": 3}), path).lr == 0.7  # without one, nothing


@pytest.mark.parametrize("changes", [{}, {"distill.lr": 0.3}, {"incremental.profile": "sgd_augmented"}])
def test_a_written_configuration_is_read_as_it_was(changes):
    config = trial_config({"distill.profile": "sgd_augmented"} | changes)
    written = config.model_dump(mode="json")
    for again in (written, dict(flatten(written)), json.loads(json.dumps(written))):
        assert trial_config(again) == config
        assert stable_hash(trial_config(again)) == stable_hash(config)
    assert TrialConfig.model_validate(written) == config


def test_a_profile_is_of_a_training_alone():
    # Elsewhere it is one unknown key, not many.
    with pytest.raises(UserError) as error:
        trial_config({"gan.profile": "sgd_augmented"})
    assert str(error.value).count("unknown key") == 1
    assert "'gan.profile'" in str(error.value)


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_set_the_same_settings_which_there_are(name):
    assert set(PROFILES[name]) == set(PROFILES["sgd_augmented"]) <= set(FitConfig.model_fields)
    assert trial_config({"distill.profile": name}).distill.profile == name


def test_new_losses_and_sources_are_off_by_default():
    config = TrialConfig()
    assert (config.gan.lambda_s, config.gan.lambda_bn, config.distill.mix_proxy) == (0, 0, 0)
    assert (config.task, config.distill.optimiser, config.distill.augment) == ("distillation", "adam", False)
    assert (config.distill.weight_decay, config.distill.profile, config.teacher.loss) == (0, "paper", "cross_entropy")


def test_a_bank_without_images_is_refused():
    with pytest.raises(UserError, match=r"bank.*no images"):
        trial_config({"bank.proxy_images": 0, "bank.generators": []})
    with pytest.raises(UserError, match=r"bank.*no images"):
        trial_config({"bank": {"proxy_images": 0, "generators": [[0, 5]], "generated_images": 0}})
    assert trial_config({"bank": {"proxy_images": 0, "generators": [[0, 5]]}}).bank.proxy_images == 0


def test_configurations_are_frozen_and_hashable():
    config = trial_config({"bank.generators": [[0, 5]], "probe.at": [3]})
    for model, name, value in ((config, "seed", 1), (config.gan, "lambda_e", 1.0), (config.teacher.fit, "lr", 1.0)):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, name, value)
    assert len({config, trial_config({"bank.generators": [[0, 5]], "probe.at": [3]}), TrialConfig()}) == 2


def test_hashes_depend_on_values_alone():
    one, other = {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}
    assert stable_hash(one) == stable_hash(other)
    known = stable_hash(TrialConfig(), "part", 3, None)
    assert len(known) == 16
    assert int(known, 16) >= 0
    changed = [
        stable_hash(TrialConfig(seed=1), "part", 3, None),
        stable_hash(TrialConfig(), "part", 4, None),
        stable_hash(TrialConfig(), "part", 3),
        stable_hash("part", TrialConfig(), 3, None),
    ]
    assert len({known, *changed}) == 5


@pytest.mark.parametrize("hash_seed", ["1", "77"])
def test_a_fresh_process_gives_the_same_hash(hash_seed):
    code = (
        "from degan_search.settings.resolve import stable_hash, trial_config\n"
        "print(stable_hash(trial_config({'gan.lambda_e': 0.3, 'probe.at': [2, 5]}), {'z': 1, 'a': 2}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = stable_hash(trial_config({"gan.lambda_e": 0.3, "probe.at": [2, 5]}), {"a": 2, "z": 1})
    assert done.stdout.strip() == expected
