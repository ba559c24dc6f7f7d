from __future__ import annotations

import pytest

from gptoss_core.train.schedule import rate


def test_rises_stays_and_falls() -> None:
    rates = [rate(step, 100, warmup=0.1, decay=0.3) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:70] == [1.0] * 61
    assert rates[85] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.04
