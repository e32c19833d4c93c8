"""The table of the GAN's losses is what a step returns and what the ledger keeps."""

from degan_search.ledger.columns import REPORT_COLUMNS, trial_schema
from degan_search.settings.gan_losses import GAN_LOSSES


def test_the_ledger_keeps_each_loss_in_its_order():
    names = [field.name for field in trial_schema().field("reports").type.value_type]
    assert names == list(REPORT_COLUMNS)
    assert names == ["budget", "score", "seconds", *GAN_LOSSES, "effective_classes", "stage", "referee_test_accuracy"]
