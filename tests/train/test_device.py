import pytest
import torch

from subfour.train.device import choose_device


def test_devices():
    """The one there is, by name or by itself."""
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_float32_is_float32_on_gpus(monkeypatch: pytest.MonkeyPatch):
    """TF32, torch's choice for convolutions, has ten bits of mantissa."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    choose_device("cpu")
    assert torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *sizes, device: None)
    assert choose_device("auto") == torch.device("cuda")
    assert not torch.backends.cudnn.allow_tf32
