"""The warm-up and decay of the IST course, against torch's own schedulers in a row."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import LinearLR, SequentialLR

from dl_lab.training.schedules import warmup_decay


def rates(schedule, n=15):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler, found = schedule(optimizer), []
    for _ in range(n):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step`")
def test_equals_the_schedulers_of_the_course():
    course = rates(lambda o: SequentialLR(o, [LinearLR(o, 1e-2, 1, 2), LinearLR(o, 1, 1e-2, 12)], [2]))
    assert rates(lambda o: warmup_decay(o, 15, 0.15, 0.85, 0.01)) == pytest.approx(course)
    assert course[0] == pytest.approx(1e-5) and course[2] == pytest.approx(1e-3) and course[14] == pytest.approx(1e-5)


def test_short_trainings_have_no_warm_up():
    assert rates(lambda o: warmup_decay(o, 1, 0.15, 0.85, 0.01), 3) == pytest.approx([1e-3] * 3)
    assert rates(lambda o: warmup_decay(o, 2, 0.15, 0.85, 0.01), 3) == pytest.approx([1e-3, 1e-5, 1e-5])


def test_a_share_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        rates(lambda o: warmup_decay(o, 15, 2, 12, 0.01))
