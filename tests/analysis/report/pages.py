"""Rows for pages, text that would do harm, and how a page is looked through in a browser."""

from playwright.sync_api import expect

from degan_search.ledger.columns import config_columns
from degan_search.settings.resolve import trial_config

PATIENCE = 60_000
"""Milliseconds until a test gives up, for a busy machine."""
expect.set_options(timeout=PATIENCE)

HOSTILE = '<script>window.bad=1</script></script><img src=x "onerror=window.bad=1 onerror=window.bad=1>'
HOSTILE += '<a href="javascript:window.bad=1">here</a>'  # Plotly itself knows links


def fail(trial_id, reason="the loss is not finite", proxy="digits", **row):
    config = config_columns(trial_config({"proxy": proxy, "teacher.dataset": "digits"}))
    about = {"trial_id": trial_id, "attempt": 1, "phase": "search", "state": "FAIL", "reason": reason, "cell": proxy}
    return {**about, **config, **row}


def draw_all(tab):
    """Scroll through the figures until each is drawn; return their names."""
    for figure in tab.locator("figure").all():
        figure.scroll_into_view_if_needed()
        expect(figure.locator(".plot .main-svg").first).to_be_visible()
    return [figure.get_attribute("data-plot") for figure in tab.locator("figure").all()]
