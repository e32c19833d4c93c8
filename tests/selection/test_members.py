"""Which generators are combined: the best of those whose files are there."""

import pandas as pd
import pytest

from degan_search.ledger.columns import config_of
from degan_search.selection.members import combined_config, combined_trials
from degan_search.settings.bank import BankConfig
from degan_search.settings.combine import Combine, member
from degan_search.settings.resolve import trial_config
from degan_search.system.errors import UserError

SCORES = {"search-0000": 0.5, "search-0001": 0.9, "search-0002": 0.7, "search-0003": 0.6, "search-0004": 0.8}
ORDER = ["search-0001", "search-0004", "search-0002", "search-0003", "search-0000"]


def searched(run, method="degan", **widths):
    rows = []
    for name, score in SCORES.items():
        config = trial_config({"method": method, "gan.lambda_e": score, "gan.width": widths.get(name, 8)})
        about = {"trial_id": name, "phase": "search", "state": "COMPLETE", "score": score, "config_method": method}
        kind = {"config_gan_width": config.gan.width, "config_gan_latent": 100, "config_gan_size": None}
        rows.append(about | kind | {"config_json": config.model_dump_json()})
        file = run / "trials" / name / "generator.safetensors"
        file.parent.mkdir(parents=True)
        file.write_bytes(name.encode())
    return pd.DataFrame(rows)


def chosen(trials, count, run):
    config = combined_config(trials, "score", Combine(members=count), run)
    return config and list(config.combine.members)


def named(*names):
    return [member(name, name.encode()) for name in names]


@pytest.mark.parametrize("count", [2, 4, 9])
def test_the_best_by_the_measure(count, tmp_path):
    trials = searched(tmp_path)
    assert chosen(trials, count, tmp_path) == named(*ORDER[:count])
    config = combined_config(trials, "score", Combine(members=count, balance=True, share=0.25), tmp_path)
    assert (config.method, config.combine.balance, config.distill.mix_proxy) == ("combined", True, 0.25)
    assert (config.gan.lambda_e, config.gan.lambda_d, config.gan.width) == (0, 0, 8)


def test_those_that_failed_or_have_no_file_are_passed_over(tmp_path):
    trials = searched(tmp_path)
    trials.loc[trials["trial_id"] == "search-0001", "state"] = "FAIL"
    (tmp_path / "trials" / "search-0002" / "generator.safetensors").unlink()
    assert chosen(trials, 3, tmp_path) == named("search-0004", "search-0003", "search-0000")


def test_all_have_the_bests_network(tmp_path):
    trials = searched(tmp_path, **{"search-0004": 16, "search-0000": 16})
    assert chosen(trials, 4, tmp_path) == named("search-0001", "search-0002", "search-0003")


def test_whatever_their_proxy(tmp_path):
    trials = searched(tmp_path)
    proxies = ["photos", "digits", "photos", "photos", "noise/uniform"]
    for index, name in enumerate(proxies):
        config = config_of(trials.loc[index]).model_copy(
            update={"proxy": name, "bank": BankConfig(proxies=proxies[1:3])}
        )
        trials.loc[index, "config_json"] = config.model_dump_json()
    config = combined_config(trials, "score", Combine(members=3), tmp_path)
    assert list(config.combine.members) == named(*ORDER[:3])
    assert (config.proxy, config.bank.proxies) == ("digits", ("digits", "photos"))


def test_fewer_than_two_are_none(tmp_path):
    trials = searched(tmp_path)
    for name in ORDER[1:]:
        (tmp_path / "trials" / name / "generator.safetensors").unlink()
    assert chosen(trials, 4, tmp_path) is None
    assert chosen(trials, 4, tmp_path / "elsewhere") is None
    assert chosen(searched(tmp_path / "other", method="dcgan"), 4, tmp_path / "other") is None


def test_a_file_elsewhere_is_refused(tmp_path):
    trials = searched(tmp_path / "run")
    (tmp_path / "elsewhere").write_bytes(b"x")
    file = tmp_path / "run" / "trials" / ORDER[0] / "generator.safetensors"
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="outside its run"):
        chosen(trials, 2, tmp_path / "run")


def test_the_trials_that_were_combined_are_known_and_those_that_were_repeated_are_none():
    members = [None, [], named("search-0001", "search-0002"), named("search-0003")]
    frame = pd.DataFrame({"config_combine_members": members, "config_method": ["degan", "degan", "combined", "degan"]})
    assert combined_trials(frame) == {"search-0001", "search-0002"}
    assert combined_trials(pd.DataFrame({"trial_id": ["search-0000"]})) == set()
