import pytest
from torch import nn

from subfour.modes import evaluation_mode


def test_every_module_comes_back_to_its_own_mode():
    """Also after an error, and where a part was frozen in evaluation mode, or trains inside a network that does not."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()))
    model[1][0].eval()
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, True, False, True]
    model.eval()
    model[1][1].train()
    with pytest.raises(ZeroDivisionError), evaluation_mode(model):
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == [False, False, False, False, True]
