"""What becomes of a job's row, whatever the job does."""

from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from tests.runs import jobs  # noqa: F401 - declares them
from tippers.errors import NotFound, NotPossibleNow
from tippers.runs import claims, engine
from tippers.runs.claims import Clock
from tippers.runs.models import Run, RunStatus

pytestmark = pytest.mark.django_db(transaction=True)


def messages(run: Run) -> str:
    return "\n".join(run.logs.order_by("id").values_list("message", flat=True))


def test_a_job_runs_once_and_its_row_says_success(tmp_path: Path) -> None:
    path = tmp_path / "effects"
    run = engine.launch("note_effect", key="k", args={"path": str(path)})
    assert engine.perform_next("short")
    assert not engine.perform_next("short")
    run.refresh_from_db()
    assert run.status == RunStatus.SUCCESS
    assert run.started_at is not None
    assert run.ended_at is not None
    assert run.created_at <= run.started_at <= run.ended_at
    assert path.read_text() == "start 1\neffect 1\n"


def test_what_cannot_be_done_fails_at_once_with_its_sentence() -> None:
    run = engine.launch("refuse", key="k", args={"sentence": "There is no column mac."})
    engine.perform_next("short")
    run.refresh_from_db()
    assert run.status == RunStatus.FAILURE
    assert run.error_message == "There is no column mac."
    assert run.attempt == 1


def test_an_unexpected_failure_is_tried_again_after_a_back_off() -> None:
    run = engine.launch("break_down", key="k", args={"until_attempt": 2})
    engine.perform_next("short")
    run.refresh_from_db()
    assert run.status == RunStatus.PENDING
    assert run.ended_at is None
    assert not engine.perform_next("short"), "it must wait for its back-off"
    Run.objects.update(not_before=Clock())
    assert engine.perform_next("short")
    run.refresh_from_db()
    assert (run.status, run.error_message) == (RunStatus.SUCCESS, None)
    assert "ZeroDivisionError: planned" in messages(run)


def test_the_third_unexpected_failure_is_the_last() -> None:
    run = engine.launch("break_down", key="k", args={"until_attempt": 99})
    for _ in range(3):
        Run.objects.update(not_before=Clock())
        assert engine.perform_next("short")
    run.refresh_from_db()
    assert run.status == RunStatus.FAILURE
    assert run.error_message == "ZeroDivisionError: planned"
    assert "about to divide" in messages(run)


def test_a_run_of_a_job_that_this_version_lacks_fails_by_name() -> None:
    Run.objects.create(job="from_the_future", queue="short", key="k")
    engine.perform_next("short")
    assert "from_the_future" in str(Run.objects.get().error_message)


def test_a_cancelled_run_is_never_started() -> None:
    run = engine.launch("refuse", key="k", args={"sentence": "no"})
    assert engine.cancel(run.run_id).status == RunStatus.CANCELLED
    assert not engine.perform_next("short")


def test_a_run_that_has_ended_cannot_be_cancelled() -> None:
    run = engine.launch("refuse", key="k", args={"sentence": "no"})
    engine.perform_next("short")
    with pytest.raises(NotPossibleNow, match="FAILURE"):
        engine.cancel(run.run_id)
    with pytest.raises(NotFound):
        engine.cancel(Run(job="x").run_id)


def test_a_finish_after_a_cancel_is_refused() -> None:
    engine.launch("refuse", key="k", args={"sentence": "no"})
    held = claims.claim("short", "me")
    assert held is not None
    engine.cancel(held.run_id)
    with pytest.raises(claims.LostLease):
        claims.succeed(held)
    held.refresh_from_db()
    assert held.status == RunStatus.CANCELLED


def test_what_is_registered_is_stopped_and_the_next_checkpoint_raises() -> None:
    engine.launch("refuse", key="k", args={"sentence": "no"})
    held = claims.claim("short", "me")
    assert held is not None
    handle = engine.RunHandle(held)
    stopped: list[str] = []
    with (
        pytest.raises(engine.Stopped, match="because"),
        handle.on_stop(lambda: stopped.append("x")),
    ):
        handle.stop("because")
    assert stopped == ["x"]


def test_a_connection_that_died_during_the_work_does_not_cost_the_result() -> None:
    run = engine.launch("lose_the_connection", key="k", args={})
    engine.perform_next("short")
    run.refresh_from_db()
    assert (run.status, run.attempt) == (RunStatus.SUCCESS, 1)


def test_a_nul_in_a_message_harms_nothing() -> None:
    run = engine.launch("log_what_text_cannot_hold", key="k", args={})
    engine.perform_next("short")
    run.refresh_from_db()
    assert (run.status, run.error_message) == (
        RunStatus.FAILURE,
        "no\N{REPLACEMENT CHARACTER}thing",
    )
    assert "before\N{REPLACEMENT CHARACTER}after" in messages(run)


def test_an_outage_is_waited_for_longer_than_a_bug() -> None:
    run = engine.launch("stand_on_nothing", key="k", args={})
    for _ in range(11):
        Run.objects.update(not_before=Clock())
        assert engine.perform_next("short")
        run.refresh_from_db()
        assert run.status == RunStatus.PENDING
        assert run.not_before - timezone.now() < timedelta(minutes=5)
    Run.objects.update(not_before=Clock())
    assert engine.perform_next("short")
    run.refresh_from_db()
    assert (run.status, run.error_message) == (
        RunStatus.FAILURE,
        "Unavailable: the storage does not answer",
    )


def test_beat_knows_the_sweep() -> None:
    assert engine.PERIODICS["runs.sweep"].every <= timedelta(seconds=30)
