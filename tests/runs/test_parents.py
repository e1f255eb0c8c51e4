"""A parent run goes on as its children end, and ends with the last of them."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from tests.runs import jobs  # noqa: F401 - declares them
from tippers.errors import CannotBeDone
from tippers.runs import claims, engine, parents
from tippers.runs.claims import Clock
from tippers.runs.models import Run, RunStatus

pytestmark = pytest.mark.django_db(transaction=True)


def family(**args: Any) -> Run:
    """A parent of `jobs.raise_family`: see there for the arguments."""
    return parents.launch_parent("raise_family", key="family", args=args)


def state(run: Run) -> str:
    run.refresh_from_db()
    return run.status


def claimed() -> Run:
    run = claims.claim("short", "somebody")
    assert run is not None
    return run


def test_a_parent_starts_at_once_and_ends_with_its_last_child(
    perform_all: Callable[[], int],
) -> None:
    parent = family(stages=[["a", "b"], ["c"]])
    assert (state(parent), parent.children.count()) == (RunStatus.STARTED, 2)
    assert engine.perform_next("short")
    assert (state(parent), parent.progress_done, parent.progress_total) == ("STARTED", 1, 2)
    assert perform_all() == 2
    assert state(parent) == RunStatus.SUCCESS
    assert (parent.progress_done, parent.progress_total) == (3, 3)
    assert parent.started_at is not None
    assert parent.ended_at is not None
    assert parent.started_at <= parent.ended_at


def test_a_parent_with_nothing_to_do_has_ended_when_it_is_launched() -> None:
    assert family(stages=[]).status == RunStatus.SUCCESS
    assert family(stages=[]).status == RunStatus.SUCCESS  # and another one may follow


def test_a_second_launch_joins_the_parent_that_is_active() -> None:
    parent = family(stages=[["a"]])
    assert family(stages=[["a"]]) == parent
    assert Run.objects.count() == 2


def test_children_that_end_at_the_same_instant_end_their_parent_once(
    perform_all: Callable[[], int],
) -> None:
    parent = family(stages=[["a", "b"], ["c"]])
    together = threading.Barrier(2)

    def end(run: Run) -> None:
        handle = engine.RunHandle(run)
        with handle.finishing():
            together.wait(10)  # neither has committed
        connection.close()

    threads = [threading.Thread(target=end, args=[claimed()]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert state(parent) == RunStatus.STARTED
    assert parent.children.count() == 3  # the next stage was launched, and once
    perform_all()
    assert state(parent) == RunStatus.SUCCESS


def test_a_child_that_ends_while_its_parent_looks_at_another_is_not_overlooked(
    perform_all: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = family(stages=[["a", "b"], ["c"]])
    first, other = claimed(), claimed()
    look = parents.PARENT_JOBS["raise_family"]

    def look_and_be_late(run: Run) -> str | None:
        undone = look(run)
        if Run.objects.filter(run_id=other.run_id, status="STARTED").exists():
            end = threading.Thread(target=succeed_elsewhere, args=[other])
            end.start()
            end.join(10)
        return undone

    monkeypatch.setitem(parents.PARENT_JOBS, "raise_family", look_and_be_late)
    engine.perform(first)
    assert (state(parent), parent.children.count()) == (RunStatus.STARTED, 3)
    perform_all()
    assert state(parent) == RunStatus.SUCCESS


def succeed_elsewhere(run: Run) -> None:
    """Over another connection; what comes after the commit is still to be done."""
    claims.succeed(run)
    connection.close()


def test_a_failed_child_fails_its_parent_when_the_others_have_ended(
    perform_all: Callable[[], int],
) -> None:
    parent = family(stages=[["a", "refuse", "b"]])
    perform_all()
    assert state(parent) == RunStatus.FAILURE
    assert parent.error_message == "1 of its runs failed. refuse: No refuse."
    ended = sorted(parent.children.values_list("status", flat=True))
    assert ended == ["FAILURE", "SUCCESS", "SUCCESS"]


def test_cancelling_a_parent_cancels_what_is_below_it_at_every_depth() -> None:
    parent = family(stages=[["a", "family:x"]])
    below = Run.objects.exclude(run_id=parent.run_id)
    assert below.count() == 3
    held = claimed()
    assert engine.cancel(parent.run_id).status == RunStatus.CANCELLED
    assert set(below.values_list("status", flat=True)) == {RunStatus.CANCELLED}
    assert not engine.perform_next("short")
    with pytest.raises(claims.LostLease):
        claims.succeed(held)


def test_a_cancelled_child_leaves_the_others_running_and_its_parent_cancelled(
    perform_all: Callable[[], int],
) -> None:
    parent = family(stages=[["a", "b"]])
    child = parent.children.first()
    assert child is not None
    engine.cancel(child.run_id)
    assert state(parent) == RunStatus.STARTED
    assert perform_all() == 1
    assert state(parent) == RunStatus.CANCELLED


@pytest.mark.parametrize(
    ("inner", "outcome"), [("x", RunStatus.SUCCESS), ("refuse", RunStatus.FAILURE)]
)
def test_a_parent_within_a_parent_settles_it_when_it_ends(
    perform_all: Callable[[], int], inner: str, outcome: RunStatus
) -> None:
    outer = family(stages=[[f"family:{inner}"]])
    middle = outer.children.get()
    assert (middle.job, middle.status) == ("raise_family", RunStatus.STARTED)
    assert perform_all() == 1
    assert (state(middle), state(outer)) == (outcome, outcome)


def test_the_outer_parent_goes_on_when_the_inner_one_has_ended(
    perform_all: Callable[[], int],
) -> None:
    outer = family(stages=[["family:x"], ["y"]])
    assert engine.perform_next("short")
    assert outer.children.count() == 2
    perform_all()
    assert state(outer) == RunStatus.SUCCESS


def test_a_child_that_has_ended_when_it_is_launched_does_not_stop_its_parent(
    perform_all: Callable[[], int],
) -> None:
    outer = family(stages=[["family:"], ["y"]])
    assert (outer.status, outer.children.count()) == (RunStatus.STARTED, 2)
    perform_all()
    assert state(outer) == RunStatus.SUCCESS


def test_a_run_that_is_adopted_while_it_is_performed_settles_its_new_parent() -> None:
    engine.launch("obey", key="a", args={})
    run = claimed()  # knows no parent
    parent = family(stages=[["a"]])
    assert parent.children.get() == run
    engine.perform(run)
    assert state(parent) == RunStatus.SUCCESS


def test_a_parent_whose_last_child_died_before_settling_it_is_healed() -> None:
    outer = family(stages=[["family:x"]])
    middle = outer.children.get()
    child = middle.children.get()
    # As the sweep ends a run whose tenth worker was lost, and as a worker that is killed between
    # its last commit and the next.
    Run.objects.filter(run_id=child.run_id).update(
        status=RunStatus.FAILURE, error_message="lost", ended_at=Clock()
    )
    engine.sweep()
    assert (state(middle), state(outer)) == (RunStatus.FAILURE, RunStatus.FAILURE)
    assert "lost" in str(middle.error_message)


def test_what_a_parents_function_raises_fails_the_parent_and_not_the_child(tmp_path: Path) -> None:
    path = tmp_path / "breaks"
    parent = family(stages=[["a"]], breaks=str(path))
    path.touch()
    assert engine.perform_next("short")
    assert parent.children.get().status == RunStatus.SUCCESS
    assert state(parent) == RunStatus.FAILURE
    assert parent.error_message == "It is broken."


def test_a_launch_that_is_rolled_back_leaves_no_parent() -> None:
    with pytest.raises(CannotBeDone), transaction.atomic():
        family(stages=[["a"]])
        raise CannotBeDone("no")
    assert not Run.objects.exists()
