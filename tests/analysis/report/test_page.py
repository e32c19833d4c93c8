"""The report page in a real browser."""

import json

import pandas as pd
import plotly.graph_objects as go
import pytest
from playwright.sync_api import expect

from analysis import report
from analysis.report import page
from degan_search import ledger
from tests.analysis.report.pages import HOSTILE, draw_all, fail


class TestPage:
    """The page in Chromium."""

    def test_summary_tables_and_figures(self, written, visit):
        tab = visit(written)
        expect(tab.locator("h1")).to_have_text("made")
        expect(tab.locator(".summary")).to_contain_text("88.2% on the test images")
        expect(tab.locator("#results table.results tbody tr")).to_have_count(4)
        assert {"by-proxy", "weights", "steps", "parallel", "pareto"} <= set(draw_all(tab))
        choices = tab.locator("figure[data-plot=by-proxy] select")
        choices.select_option(label="score")
        expect(tab.locator("figure[data-plot=by-proxy] .ytitle")).to_have_text("score")

    def test_figures_are_plotly_s(self, made):
        importances = pd.DataFrame({"cell": "a", "parameter": ["x", "y"], "importance": [0.7, 0.3]})
        frame, curves = page.load(made)
        figures = page.plots.figures(frame, curves, importances, ("score", "multiply_adds", "seconds"))
        assert all(figure["views"] for figure in figures)
        for view in (view for figure in figures for view in figure["views"]):
            go.Figure({"data": view["data"], "layout": view["layout"]})  # raises for a property it does not know
            json.dumps(view, allow_nan=False)

    def test_nothing_moves_as_it_is_drawn(self, written, visit):
        tab = visit(written)
        top = "document.querySelector('#trials').getBoundingClientRect().top + scrollY"
        before = tab.evaluate(top)
        draw_all(tab)
        tab.locator(".gallery img").first.scroll_into_view_if_needed()
        tab.wait_for_function("[...document.querySelectorAll('.gallery img')].every(image => image.complete)")
        assert tab.evaluate(top) == pytest.approx(before, abs=1)

    def test_sorts_by_mouse_and_by_keyboard(self, made, written, visit):
        tab = visit(written)
        best = ledger.load(made).sort_values("score", ascending=False)["trial_id"].iloc[0]
        head, first = tab.locator("#table th[data-name=score]"), tab.locator("#table tbody tr").first
        head.locator("button").click()
        expect(head).to_have_attribute("aria-sort", "descending")
        expect(first.locator("a")).to_have_text(best)
        tab.keyboard.press("Enter")
        expect(head).to_have_attribute("aria-sort", "ascending")
        expect(first.locator("a")).not_to_have_text(best)
        tab.locator("#table th[data-name=trial_id] button").click()
        expect(head).to_have_attribute("aria-sort", "none")

    def test_filters_and_pages(self, made, written, visit):
        frame, tab = ledger.load(made), visit(written)
        count = tab.locator("#count")
        expect(count).to_have_text("1 to 50 of 60 trials")
        tab.locator("#next").click()
        expect(count).to_have_text("51 to 60 of 60 trials")
        tab.locator("#filters [name=config_proxy]").select_option("photos")
        expect(count).to_have_text(f"{(frame['config_proxy'] == 'photos').sum()} of 60 trials")
        tab.locator("#filters [name=phase]").select_option("final")
        both = int(((frame["config_proxy"] == "photos") & (frame["phase"] == "final")).sum())
        expect(tab.locator("#table tbody tr")).to_have_count(both)
        tab.locator("#filters [name=text]").fill("no such trial")
        expect(count).to_have_text("0 of 60 trials")
        tab.locator("#filters button[type=reset]").click()
        expect(count).to_have_text("1 to 50 of 60 trials")
        columns = tab.locator("#table th").count()
        tab.locator("#filters [name=all]").check()
        assert tab.locator("#table th").count() > columns

    def test_a_trial_has_a_page(self, made, written, visit):
        tab = visit(written)
        held = tab.locator(".gallery a").first
        trial = held.inner_text()
        held.click()
        expect(tab.locator("#trial h1")).to_have_text(trial)
        expect(tab.locator("#overview")).to_be_hidden()
        expect(tab.locator("#trial .plot .main-svg").first).to_be_visible()
        assert tab.locator("#trial img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        expect(tab.locator("#trial")).to_contain_text("gan.lambda_e")
        assert tab.title().startswith(trial)
        tab.go_back()
        expect(tab.locator("#overview")).to_be_visible()
        other = visit(f"{written.as_uri()}#trial/search-9999")
        expect(other.locator("#trial")).to_contain_text("no trial search-9999")

    def test_a_phone_in_the_dark(self, written, visit):
        tab = visit(written, color_scheme="dark")
        tab.set_viewport_size({"width": 390, "height": 800})
        tab.locator("figure").first.scroll_into_view_if_needed()
        expect(tab.locator("figure .xtick").first).to_be_visible()
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        assert tab.locator("figure .xtick text").first.evaluate("e => e.style.fill") == "rgb(230, 233, 237)"

    @pytest.mark.parametrize("csp", [True, False], ids=["policy", "no policy"])
    def test_hostile_text_is_text(self, tmp_path, visit, csp):
        run = tmp_path / "run"
        ledger.write_row(run, fail("search-0000", HOSTILE, HOSTILE))
        for number in (1, 2):
            done = {"state": "COMPLETE", "score": number / 4, "seconds": 3.0 * number, "reason": HOSTILE}
            curve = [{"budget": 5, "score": 0.1, "seconds": 1.0}, {"budget": 9, "score": number / 4, "seconds": 2.0}]
            ledger.write_row(run, fail(f"search-000{number}", proxy=HOSTILE, **done) | {"reports": curve})
        (run / "space.yaml").write_text(f"description: {HOSTILE}")
        (run / "run.json").write_text(json.dumps({"git_commit": HOSTILE, "versions": {HOSTILE: HOSTILE}}))
        importances = pd.DataFrame({"cell": HOSTILE, "parameter": [HOSTILE], "importance": [1.0]})
        tab = visit(report.write(run, importances=importances), bypass_csp=not csp)
        draw_all(tab)
        expect(tab.locator("#failed .reason")).to_have_text(HOSTILE)
        assert HOSTILE in tab.locator("#configuration pre").first.text_content()
        assert tab.locator("figure[data-plot=by-proxy] .xtick text").text_content() == HOSTILE
        assert tab.locator("a[href^=javascript], svg a").count() == 0
        tab.locator("figure[data-plot=by-proxy] .xtick text").click(force=True)
        tab.locator("#filters [name=config_proxy]").select_option(HOSTILE)
        expect(tab.locator("#table tbody tr").first).to_contain_text(HOSTILE)
        tab.goto(f"{tab.url}#trial/search-0001")
        expect(tab.locator("#trial .notice")).to_have_text(HOSTILE)
        tab.goto(f"{tab.url.partition('#')[0]}#trial/{HOSTILE}")
        expect(tab.locator("#trial")).to_contain_text("window.bad=1")
        assert tab.evaluate("window.bad") is None
