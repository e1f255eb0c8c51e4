"""Which workers a machine has."""

import pytest

from tippers.embedded.workers import workers


@pytest.mark.parametrize(("asked", "short"), [(1, 1), (2, 1), (3, 1), (8, 4)])
def test_long_work_gets_what_is_asked_and_short_work_half_as_many_of_its_own(
    asked: int, short: int
) -> None:
    found = {worker.queues: worker.slots for worker in workers(asked)}
    assert found == {"long,short": asked, "short": short}


def test_a_worker_is_started_with_its_queues_and_slots() -> None:
    for worker in workers(8):
        said = worker.arguments()
        assert said[said.index("-Q") + 1] == worker.queues
        assert said[said.index("-c") + 1] == str(worker.slots)
