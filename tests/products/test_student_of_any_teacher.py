"""An exported student of a teacher that is gone, and of one that takes blue before red."""

import json
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from degan_search import ledger
from degan_search.ledger.columns import config_columns
from degan_search.networks.table import build_classifier
from degan_search.products.student_file import export_student, find_student
from degan_search.products.student_formats import FORMATS
from degan_search.system.errors import UserError
from degan_search.trial import outcome as outcomes
from degan_search.trial.outcome import Outcome


def test_the_run_tells_the_class_names_of_a_teacher_that_is_gone(finished_run, tiny, teacher, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "digits")
    trial = {"trial_id": "final-0000", "attempt": 1, "phase": "final", "state": "COMPLETE", "score": 1.0}
    gone = tiny({"teacher": {"dataset": None, "path": f"{tmp_path}/gone.pt", "classes": f"{tmp_path}/gone.txt"}})
    ledger.write_row(run, trial | {"teacher_hash": teacher.hash} | config_columns(gone))
    shutil.copytree(run / "trials" / "search-0000", run / "trials" / "final-0000")
    names = [f"digit {number}" for number in range(10)]
    for told, says in ((names, None), (None, "gone"), ([*names[1:], 7], "gone"), (names[1:], "size mismatch")):
        (run / "run.json").write_text(json.dumps({"class_names": {teacher.hash: told, "other": ["a", "b"]}}))
        with pytest.raises(UserError, match=says) if says else nullcontext():
            assert find_student(run, "final-0000").classes == tuple(names)


@pytest.mark.parametrize("kind", FORMATS)
def test_files_take_red_before_blue_whatever_the_student_takes(kind, finished_run, tiny, tmp_path):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    run, student = shutil.copytree(finished_run, tmp_path / "digits"), build_classifier("lenet", 10, 2, 3)
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    outputs = {}
    for number, order in enumerate(("rgb", "bgr")):
        trial, out = f"final-000{number}", tmp_path / f"{order}{FORMATS[kind].suffix}"
        config = tiny({"teacher.input": {"channels": 3, "order": order}, "student": {"network": "lenet", "width": 2}})
        about = {"trial_id": trial, "attempt": 1, "phase": "final", "state": "COMPLETE", "score": 1.0}
        ledger.write_row(run, about | config_columns(config))
        outcomes.save(Outcome({}, student), run / "trials" / trial)
        export_student(run, trial, out)
        loaded = FORMATS[kind].load(out)
        assert ("exchanged" in loaded.about["preprocessing"]["inside"]) == (order == "bgr")
        outputs[order] = {side: [one(side_of(pixels, side)) for one in loaded.runs] for side in ("as it is", "turned")}
    for one, other in zip(outputs["rgb"]["as it is"], outputs["bgr"]["turned"], strict=True):
        assert np.allclose(one, other, atol=1e-4)
    for one, other in zip(outputs["rgb"]["as it is"], outputs["bgr"]["as it is"], strict=True):
        assert not np.allclose(one, other, atol=1e-3)


def side_of(pixels, side):
    return (pixels.flip(1) if side == "turned" else pixels).numpy()
