"""Progressive resizing."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from torch import Tensor

from subfour.profit.method import ProfitRun
from subfour.profit.session import prepare_session
from subfour.rundir import RunDirectory
from subfour.train import loop
from subfour.train.loop import Trainer
from tests.profit.conftest import FinishedRun


@pytest.mark.parametrize(("epochs", "sizes"), [(4, [16, 16, 32, 32]), (3, [16, 32, 32]), (1, [32])])
def test_the_float_phase_begins_with_smaller_images_where_that_is_asked_for(
    finished: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, sizes: list[int]
):
    """Each size has an equal share of its epochs; the last epoch and every other phase see the whole size."""
    schedule = replace(finished.config.schedule, float_epochs=epochs, float_sizes=(Fraction(1, 2), Fraction(1)), max_steps=1)
    config = replace(finished.config, weight_bits=(4,), activation_bits=(4,), schedule=schedule)
    seen: list[tuple[str, int]] = []
    step = loop._train_step

    def watched(trainer: Trainer, images: Tensor, labels: Tensor) -> tuple[float, int, int]:
        seen.append((run.phases[run.state.phase].kind, images.shape[-1]))
        return step(trainer, images, labels)

    monkeypatch.setattr(loop, "_train_step", watched)
    session = prepare_session(config)
    run = ProfitRun(session, RunDirectory.create(tmp_path / "run", config.to_json()))
    run.train()
    assert [size for kind, size in seen if kind == "float"] == sizes
    assert {size for kind, size in seen if kind != "float"} == {32}
