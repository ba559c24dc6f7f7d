"""The learning rate over a run: a linear warm-up, a plateau, a linear decay to zero.

```
steps 100, warmup 0.1, decay 0.3:   0.1 ... 1.0 (step 9)   1.0   0.98 (step 70) ... 0.03 (step 99)
```
"""

from __future__ import annotations


def rate(step: int, steps: int, *, warmup: float, decay: float) -> float:
    """The factor on every learning rate at one step.

    Args:
        step: from 0.
        steps: length of the run.
        warmup: share of the run that rises.
        decay: share of the run, at the end, that falls.
    """
    rising = max(1, round(warmup * steps))
    falling = max(1, round(decay * steps))
    return min(1.0, (step + 1) / rising, (steps - step) / falling)
