from dataclasses import replace
from pathlib import Path

import pytest

from subfour import collective
from subfour.convert.calibrate import set_bits
from subfour.engine.folded import CodesLayer
from subfour.layers import quant_layers
from subfour.profit.method import ProfitRun
from subfour.profit.networks import evaluated_network, training_network
from subfour.profit.session import prepare_session
from subfour.rundir import RunDirectory
from tests.profit.conftest import FinishedRun
from tests.profit.tiny_run import Observer


@pytest.mark.parametrize(
    ("choices", "on_codes"),
    [({}, True), ({"engine": "folded"}, True), ({"engine": "plain"}, False), ({"quantizer": "lsq"}, False)],
)
def test_quantized_phases_train_on_codes_unless_told_otherwise_and_all_are_evaluated_plainly(
    finished: FinishedRun, tmp_path: Path, choices: dict[str, str], on_codes: bool
):
    config = replace(finished.config, snap=False, **choices)
    run = ProfitRun(prepare_session(config), RunDirectory.create(tmp_path / "run", config.to_json()), Observer())
    for phase in run.phases:
        set_bits(run.model, phase.weight_bits, phase.activation_bits)
        layers = quant_layers(training_network(run.session, phase, run.state)).values()
        assert any(isinstance(layer, CodesLayer) for layer in layers) == (on_codes and phase.kind != "float")
        assert evaluated_network(run.session, phase, run.state) is run.model


def test_workers_with_one_batch_norm_train_plainly(finished: FinishedRun, monkeypatch: pytest.MonkeyPatch):
    """On codes a worker would normalise with its own images only."""
    monkeypatch.setattr(collective, "count", lambda: 2)
    config = replace(finished.config, snap=False)
    alone = replace(config, parallel=replace(config.parallel, sync_batchnorm=False))
    assert prepare_session(config).engine == "plain"
    assert prepare_session(alone).engine == "folded"
    with pytest.raises(ValueError, match=r"engine: folded is not possible with 2 workers .* add --parallel.no-sync-batchnorm"):
        prepare_session(replace(config, engine="folded"))
