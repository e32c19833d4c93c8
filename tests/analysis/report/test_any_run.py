"""Pages of runs with little in them, and with much, in a real browser."""

import shutil

import pandas as pd
import pytest
from made_ledger import class_orders, made_ledger
from playwright.sync_api import expect

from analysis import report
from analysis.report import data, page
from degan_search import ledger
from degan_search.ledger.columns import REPORT_COLUMNS
from tests.analysis.report.pages import draw_all, fail


class TestAnyRun:
    """Runs with little in them, and with much."""

    def test_no_trial_yet(self, tmp_path, visit):
        (tmp_path / "space.yaml").write_text("description: begun")
        tab = visit(report.write(tmp_path))
        expect(tab.locator(".notice")).to_contain_text("No trial has finished yet")

    def test_failed_trials_alone(self, tmp_path, visit):
        for number in range(2):
            ledger.write_row(tmp_path, fail(f"search-000{number}"))
        tab = visit(report.write(tmp_path))
        expect(tab.locator("#failed tbody tr")).to_have_count(2)
        expect(tab.locator("#figures")).to_contain_text("Nothing to draw yet")

    @pytest.mark.parametrize(("left_out", "figures"), [("search", {"by-proxy", "pareto"}), ("final", {"steps"})])
    def test_one_phase_alone(self, made, tmp_path, visit, left_out, figures):
        run = shutil.copytree(made, tmp_path / "run")
        for file in run.glob(f"*/{left_out}-*.parquet"):
            file.unlink()
        tab = visit(report.write(run))
        assert figures <= set(tab.locator("figure").evaluate_all("all => all.map((one) => one.dataset.plot)"))

    def test_new_classes_are_learned(self, tmp_path, visit):
        tab = visit(report.write(class_orders(tmp_path / "run")))
        rows = tab.locator("#results table.results tbody tr")
        expect(rows.locator("th")).to_have_text(["old and new classes", "old classes", "new classes"])
        degan = [row.locator("td").nth(5).inner_text() for row in rows.all()]
        assert degan[0].startswith("41.5 ± 0.6 (4)") and "paper 68.7" in degan[0] and degan[1:] == ["50.0", "30.0"]
        summary = tab.locator(".summary")
        expect(summary).to_contain_text("cifar100/order_1993_next_20, cifar100/order_1994_next_20")
        for named, left_out in (
            ("Old classes", "True data"),
            ("New classes", "Proxies"),
            ("Network before", "Student"),
        ):
            assert summary.locator("dt", has_text=named).count() == 1
            assert summary.locator("dt", has_text=left_out).count() == 0
        expect(tab.locator("#regret table").first).to_contain_text("random")
        assert {"by-proxy", "weights", "steps", "parallel", "pareto"} <= set(draw_all(tab))
        views = tab.locator("figure[data-plot=by-proxy] option").all_inner_texts()
        assert views[-2:] == ["accuracy on old classes (%)", "accuracy on new classes (%)"]
        assert "old accuracy, %" in tab.locator("#table th").all_inner_texts()

    def test_one_trial(self, tmp_path, visit):
        tab = visit(report.write(made_ledger(tmp_path / "one", 1)))
        expect(tab.locator("#count")).to_have_text("1 trial")
        draw_all(tab)

    def test_two_thousand(self, made, tmp_path, visit, monkeypatch):
        frame, curves = page.load(made)
        frames = [part.assign(trial_id=part["trial_id"] + f"-{copy}") for copy in range(34) for part in (frame, curves)]
        many = pd.concat(frames[::2], ignore_index=True), pd.concat(frames[1::2], ignore_index=True)
        monkeypatch.setattr(page, "load", lambda run: many)
        file = report.write(made, tmp_path / "many.html")
        assert file.stat().st_size < 15e6
        tab = visit(file)
        expect(tab.locator("#table tbody tr")).to_have_count(50)
        expect(tab.locator("#count")).to_contain_text("2,040 trials")
        ready = tab.evaluate("document.documentElement.dataset.ready")
        print(f"{len(many[0])} trials: {file.stat().st_size / 1e6:.1f} MB, table ready after {ready} ms")


def test_curves_hold_every_column_that_was_recorded(made):
    _, curves = page.load(made)
    recorded = {name for name in REPORT_COLUMNS if name not in ("stage", "seconds") and curves[name].notna().any()}
    held = {name for trial in data.curves(curves)["trials"].values() for name in trial}
    assert held == recorded > {"budget", "score"}
