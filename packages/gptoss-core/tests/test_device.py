from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gptoss_core.device import choose_device
from gptoss_core.model import Transformer
from gptoss_harmony.errors import UsageError


def test_auto_chooses_what_is_there() -> None:
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "abacus", "meta", "cuda:x"])
def test_devices_that_are_not_there_are_refused(name: str, tiny_folder: Path) -> None:
    with pytest.raises(UsageError, match=name):
        choose_device(name)
    with pytest.raises(UsageError, match=name):
        Transformer.from_checkpoint(tiny_folder, device=name)
