"""The report page: in a real browser, with little and much in the ledger, and served while a sweep writes."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
from made_ledger import class_orders, made_ledger
from playwright.sync_api import expect, sync_playwright
from typer.testing import CliRunner

from analysis import report
from analysis.report import content, page, samples, watch
from degan_search import ledger
from degan_search.cli.main import app
from degan_search.ledger.columns import config_columns
from degan_search.settings.resolve import trial_config
from degan_search.system.errors import UserError

PATIENCE = 60_000
"""Milliseconds until a test gives up, for a busy machine."""
expect.set_options(timeout=PATIENCE)

HOSTILE = '<script>window.bad=1</script></script><img src=x "onerror=window.bad=1 onerror=window.bad=1>'
HOSTILE += '<a href="javascript:window.bad=1">here</a>'  # Plotly itself knows links


def fail(trial_id, reason="the loss is not finite", proxy="digits", **row):
    config = config_columns(trial_config({"proxy": proxy, "teacher.dataset": "digits"}))
    about = {"trial_id": trial_id, "attempt": 1, "phase": "search", "state": "FAIL", "reason": reason, "cell": proxy}
    return {**about, **config, **row}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_ledger(tmp_path_factory.mktemp("runs") / "made", 60)


@pytest.fixture(scope="module")
def written(made):
    return report.write(made)


@pytest.fixture(scope="module")
def chromium():
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    if not any(found):
        pytest.skip("no Chromium is installed here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=next(filter(None, found)), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Open a page and collect what it complains of, which must be nothing."""
    faults, contexts = [], []

    def opened(address, **options):
        contexts.append(chromium.new_context(viewport={"width": 1280, "height": 900}, **options))
        contexts[-1].set_default_timeout(PATIENCE)
        tab = contexts[-1].new_page()
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        tab.goto(address if isinstance(address, str) else address.resolve().as_uri())
        tab.wait_for_selector("html[data-ready]", state="attached")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def draw_all(tab):
    """Scroll through the figures until each is drawn; return their names."""
    for figure in tab.locator("figure").all():
        figure.scroll_into_view_if_needed()
        expect(figure.locator(".plot .main-svg").first).to_be_visible()
    return [figure.get_attribute("data-plot") for figure in tab.locator("figure").all()]


class TestWriting:
    """`write`, and what a page weighs."""

    def test_into_the_run_or_where_asked(self, made, written, tmp_path):
        assert written == made / "report.html"
        assert report.write(made, tmp_path / "page.html") == tmp_path / "page.html"
        assert list(tmp_path.iterdir()) == [tmp_path / "page.html"]

    def test_nothing_comes_from_elsewhere(self, written):
        text = written.read_text().replace(page.get_plotlyjs(), "")
        assert not any(f"{name}={quote}http" in text for name in ("src", "href") for quote in ('"', "'", ""))
        assert 'content="default-src ' in text

    def test_faults_are_told(self, made, tmp_path):
        with pytest.raises(UserError, match="no run at"):
            report.write(tmp_path / "none")
        with pytest.raises(UserError, match="is no run"):
            report.write(tmp_path)
        with pytest.raises(UserError, match="no folder"):
            report.write(made, tmp_path / "none" / "page.html")

    def test_command(self, made, tmp_path):
        result = CliRunner().invoke(app, ["report", str(made), "--out", str(tmp_path / "page.html")])
        assert (result.exit_code, result.stdout.strip()) == (0, str(tmp_path / "page.html"))
        refused = CliRunner().invoke(app, ["report", str(tmp_path / "none")])
        assert refused.exit_code == 2
        assert refused.stderr.count("\n") == 1

    def test_commands_to_go_on_with_are_there(self):
        known = {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands}
        assert {command.split()[0] for command in content.COMMANDS} <= known

    def test_the_best_grids_are_held_and_others_linked(self, made, tmp_path, monkeypatch):
        frame = ledger.load(made)
        everything = samples.find(made, frame, made / "report.html")
        assert everything
        assert all(grid.picture for grid in everything)
        monkeypatch.setattr(samples, "BYTES", len(everything[0].picture) + 200)
        some = samples.find(made, frame, tmp_path / "page.html")
        assert [bool(grid.picture) for grid in some] == [True] + [False] * (len(some) - 1)
        assert all((tmp_path / grid.link).is_file() for grid in some)


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
        figures = page.plots.figures(frame, curves, importances)
        assert all(figure["views"] for figure in figures)
        for view in (view for figure in figures for view in figure["views"]):
            go.Figure({"data": view["data"], "layout": view["layout"]})  # raises for a property it does not know
            json.dumps(view, allow_nan=False)

    def test_sorts_by_mouse_and_by_keyboard(self, made, written, visit):
        tab = visit(written)
        best = ledger.load(made).sort_values("score", ascending=False)["trial_id"].iloc[0]
        head, first = tab.locator("#table th[data-name=score]"), tab.locator("#table tbody tr").first
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        expect(first.locator("a")).to_have_text(best)
        tab.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        expect(first.locator("a")).not_to_have_text(best)
        tab.locator("#table th[data-name=trial_id] button").click()
        assert head.get_attribute("aria-sort") == "none"

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
        ledger.write(run, fail("search-0000", HOSTILE, HOSTILE))
        for number in (1, 2):
            done = {"state": "COMPLETE", "score": number / 4, "seconds": 3.0 * number, "reason": HOSTILE}
            curve = [{"budget": 5, "score": 0.1, "seconds": 1.0}, {"budget": 9, "score": number / 4, "seconds": 2.0}]
            ledger.write(run, fail(f"search-000{number}", proxy=HOSTILE, **done) | {"reports": curve})
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


class TestAnyRun:
    """Runs with little in them, and with much."""

    def test_no_trial_yet(self, tmp_path, visit):
        (tmp_path / "space.yaml").write_text("description: begun")
        tab = visit(report.write(tmp_path))
        expect(tab.locator(".notice")).to_contain_text("No trial has finished yet")

    def test_failed_trials_alone(self, tmp_path, visit):
        for number in range(2):
            ledger.write(tmp_path, fail(f"search-000{number}"))
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


def huge(file):
    file.write_bytes(samples.PNG)
    os.truncate(file, 2**36)  # takes no room on the disk


@pytest.fixture
def served(tmp_path):
    """A run that has begun, its server, and a way to ask it."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "space.yaml").write_text("description: begun")
    server = watch.server(run)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def ask(path, host="127.0.0.1"):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", f"{host}:{server.server_address[1]}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()

    yield run, f"http://127.0.0.1:{server.server_address[1]}/", ask
    server.shutdown()
    server.server_close()


class TestWatch:
    """`--watch`."""

    def test_serves_the_page_and_grids_alone(self, served, tmp_path):
        run, address, ask = served
        assert address.startswith("http://127.0.0.1:")
        for name in ("search-0000", "search-0001"):
            (run / "trials" / name).mkdir(parents=True)
        (run / "trials" / "search-0000" / "samples.png").write_bytes(samples.PNG)
        (run / "trials" / "search-0000" / "student.safetensors").write_bytes(b"secret")
        (run / "samples.png").write_bytes(b"secret")
        (tmp_path / "samples.png").write_bytes(b"secret")
        (run / "trials" / "search-0001" / "samples.png").symlink_to(tmp_path / "samples.png")
        (run / "trials" / "search-0002").symlink_to(tmp_path)
        assert ask("/")[0] == 200
        assert ask("/trials/search-0000/samples.png") == (200, samples.PNG)
        paths = ["/space.yaml", "/trials/../samples.png", "/trials/%2e%2e/samples.png", "/trials/./samples.png"]
        paths += ["/trials/search-0000/student.safetensors", "/trials/search-0000", "/trials/"]
        paths += ["/trials/search-0001/samples.png", "/trials/search-0002/samples.png", "/../samples.png"]
        assert {path: ask(path)[0] for path in paths} == dict.fromkeys(paths, 404)
        for host in ("elsewhere.example", "127.0.0.1.elsewhere.example", "localhost.elsewhere.example", "0.0.0.0", ""):
            assert ask("/", host=host)[0] == 403
            assert ask("/version", host=host)[0] == 403

    def test_is_there_for_this_machine_alone(self, made):
        server = watch.server(made)
        assert server.server_address[0] == "127.0.0.1"
        server.server_close()

    def test_a_grid_that_is_no_picture_to_look_at_is_left_out(self, served):
        run, _, ask = served
        for name, make in (("pipe", os.mkfifo), ("huge", huge)):
            (run / "trials" / name).mkdir(parents=True)
            make(run / "trials" / name / "samples.png")
            assert ask(f"/trials/{name}/samples.png")[0] == 404

    def test_refreshes_itself_and_keeps_filters(self, served, visit):
        run, address, ask = served
        before = ask("/version")
        tab = visit(address)
        expect(tab.locator(".notice")).to_contain_text("No trial has finished yet")
        tab.locator("#filters [name=text]").fill("search-0001")
        for number in range(2):
            ledger.write(run, fail(f"search-000{number}"))
        expect(tab.locator("#count")).to_have_text("1 of 2 trials")
        expect(tab.locator("#filters [name=text]")).to_have_value("search-0001")
        assert ask("/version") != before

    def test_a_broken_ledger_is_told(self, served):
        run, _, ask = served
        (run / "ledger").mkdir()
        (run / "ledger" / "search-0000-1.parquet").write_bytes(b"broken")
        status, text = ask("/")
        assert status == 500
        assert b"search-0000-1.parquet" in text

    def test_ends_at_ctrl_c(self, made):
        program = "from degan_search.cli.main import main; main()"
        arguments = [sys.executable, "-c", program, "report", str(made), "--watch"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as child:
            assert child.stdout.readline().startswith("http://127.0.0.1:")
            child.send_signal(signal.SIGINT)
            assert child.wait(60) == 0

    def test_faults_are_told(self, made, tmp_path):
        for arguments in (["--port", "99999"], ["--out", "page.html"]):
            result = CliRunner().invoke(app, ["report", str(made), "--watch", *arguments])
            assert result.exit_code == 2, result.output
        with pytest.raises(UserError, match="no run at"):
            watch.server(tmp_path / "none")
