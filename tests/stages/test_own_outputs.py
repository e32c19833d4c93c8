"""Teachers that give probabilities or their logarithms, and TorchScript that is frozen."""

import pytest
import torch
from torch import nn

from degan_search.networks.front import Classifier, device_of
from degan_search.networks.image_input import ImageInput
from degan_search.networks.own import outputs_of, scripted
from degan_search.networks.table import build_classifier
from degan_search.stages import teacher as teachers
from degan_search.system.errors import NoticeWarning
from degan_search.training.measures import predict

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")


@pytest.fixture
def network(teacher):
    model = build_classifier("lenet", 10, 4)
    model.load_state_dict(teacher.model().state_dict())
    return model.eval()


@pytest.fixture
def obtained(tiny, true, tmp_path):
    def obtain(network, freeze=False):
        script = torch.jit.script(network.eval())
        (torch.jit.freeze(script) if freeze else script).save(str(tmp_path / "own.pt"))
        config = tiny({"teacher": {"path": str(tmp_path / "own.pt"), "trusted": True}}).teacher
        return teachers.obtain(config, true, tmp_path)

    return obtain


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize(("last", "kind"), [(nn.Softmax(1), "probabilities"), (nn.LogSoftmax(1), "log-probabilities")])
def test_probabilities_are_found_out_said_and_turned_to_logits(last, kind, freeze, network, obtained, true, teacher):
    with pytest.warns(NoticeWarning, match=rf"own.pt' gives {kind}, not logits: logits are made of them") as told:
        mine = obtained(nn.Sequential(network, last), freeze)
    assert len([one for one in told if one.category is NoticeWarning]) == 1
    images = torch.from_numpy(true.images)
    given, logits = (predict(one.model(), images) for one in (mine, teacher))
    for temperature in (1, 20):  # what distillation sees
        torch.testing.assert_close((given / temperature).softmax(1), (logits / temperature).softmax(1))
    assert mine.holdout_accuracy == teacher.holdout_accuracy
    x = torch.zeros(2, 1, 32, 32, requires_grad=True)
    mine.model()(x).softmax(1)[:, 0].sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    assert scripted(mine.model())


@pytest.mark.parametrize("freeze", [False, True])
def test_logits_stay_as_they_are(freeze, network, obtained, true, teacher, recwarn):
    mine = obtained(network, freeze)
    assert mine.outputs == "logits"
    assert not [told for told in recwarn if told.category is NoticeWarning]
    images = torch.from_numpy(true.images)
    torch.testing.assert_close(predict(mine.model(), images), predict(teacher.model(), images))
    assert device_of(mine.model()) == torch.device("cpu")


def test_probabilities_of_zero_have_finite_logits_and_gradients():
    given = torch.tensor([[0.0, 1.0], [0.25, 0.75]], requires_grad=True)
    takes = ImageInput(1, 2, 1, (0.5,), (0.5,))
    logits = Classifier(nn.Flatten(), takes, "probabilities")(given[:, None, None])
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.softmax(1), given)
    logits.sum().backward()
    assert given.grad.isfinite().all()
    logs = Classifier(nn.Flatten(), takes, "log_probabilities")(torch.tensor([[-torch.inf, 0.0]])[:, None, None])
    assert logs.isfinite().all()


def test_outputs_are_told_apart():
    logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    assert outputs_of(logits) == outputs_of(logits.abs()) == outputs_of(-logits.abs()) == "logits"
    assert outputs_of(torch.zeros(8, 5)) == outputs_of(logits.sigmoid()) == "logits"
    assert outputs_of(logits.softmax(1)) == outputs_of(logits.softmax(1).half()) == "probabilities"
    assert outputs_of(logits.log_softmax(1)) == "log_probabilities"
    assert outputs_of(torch.full((8, 5), torch.nan)) == "logits"
    mixed = logits.softmax(1)
    mixed[3] *= 1.2
    assert outputs_of(mixed) == "logits"
