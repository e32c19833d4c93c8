"""Rounds of seeds, and which configurations stop, on made rows."""

from dataclasses import replace
from itertools import pairwise

from degan_search import ledger
from degan_search.ledger.columns import config_of
from degan_search.search.finals.lineup import Entrant
from degan_search.search.finals.rounds import final_scores, rounds, stops
from degan_search.settings.resolve import stable_hash
from tests.search.finals.made_runs import searched, write


def test_rounds_cover_every_seed_once():
    assert rounds([4, 5], True) == [([4, 5], [4, 5])]
    assert rounds([4, 5, 6, 7], False) == [([4, 5, 6, 7], [4, 5, 6, 7])]
    assert rounds([4, 5, 6, 7, 8], True) == [([4, 5, 6], [4, 5, 6]), ([4, 5, 6, 7], [7]), ([4, 5, 6, 7, 8], [8])]
    assert all(before[0] + after[1] == after[0] for before, after in pairwise(rounds([*range(9)], True)))


class TestStops:
    """`stops` on made rows: search-0 leads A by 0.1, 0.2, 0.3 (p 0.037) and ties with B."""

    SCORES = {"search-0": (0.5, 0.6, 0.7), "A": (0.4, 0.4, 0.4), "B": (0.51, 0.59, 0.7)}

    def field(self, tiny, **proxies):
        return [
            Entrant(tiny({"gan.lambda_d": number, "proxy": proxies.get(name, "digits")}), "cell", name)
            for number, name in enumerate(self.SCORES)
        ]

    def frame(self, folder, field, tiny):
        number = 0
        for entrant in field:
            for seed, score in enumerate(self.SCORES[entrant.source], start=1):
                write(folder, f"final-{number:04d}", entrant.config.model_copy(update={"seed": seed}), score)
                number += 1
        return ledger.load(folder)

    def test_one_that_is_beaten(self, tmp_path, tiny):
        two = self.field(tiny)[:2]
        frame = self.frame(tmp_path, two, tiny)
        assert [entrant.source for entrant in stops(two, [1, 2, 3], frame)] == ["A"]
        assert stops(two, [1, 2], frame) == []

    def test_more_comparisons_ask_for_more(self, tmp_path, tiny):
        three = self.field(tiny)
        assert stops(three, [1, 2, 3], self.frame(tmp_path, three, tiny)) == []

    def test_proxies_do_not_compete_and_baselines_never_stop(self, tmp_path, tiny):
        apart = self.field(tiny, A="photos")[:2]
        assert stops(apart, [1, 2, 3], self.frame(tmp_path, apart, tiny)) == []
        leader, beaten = self.field(tiny)[:2]
        frame = self.frame(tmp_path / "other", [leader, beaten], tiny)
        assert stops([leader, replace(beaten, source=None)], [1, 2, 3], frame) == []


def test_what_is_done_is_known_by_its_configuration(tmp_path, tiny):
    frame = ledger.load(searched(tmp_path / "run", tiny))
    (row,) = [row for _, row in frame.iterrows() if row["phase"] == "final"]
    assert final_scores(frame) == {stable_hash(config_of(row)): 0.65}
