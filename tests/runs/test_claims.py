"""Who gets a run, and whose word counts afterwards."""

import socket
import subprocess
import sys
import threading
import uuid
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection, transaction

from tests.runs import jobs  # noqa: F401 - declares them
from tippers.runs import claims, engine
from tippers.runs.claims import Clock, LostLease
from tippers.runs.models import Run, RunStatus

pytestmark = pytest.mark.django_db(transaction=True)


def launch(key: str = "k", job: str = "refuse") -> Run:
    return engine.launch(job, key=key, args={"sentence": "no"})


def in_threads(count: int, function: object) -> None:
    def closing() -> None:
        try:
            function()  # type: ignore[operator]  # a plain callable
        finally:
            connection.close()

    threads = [threading.Thread(target=closing) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_four_claimers_share_two_hundred_runs_without_doubles() -> None:
    for number in range(200):
        launch(f"k{number}")
    claimed: list[uuid.UUID] = []

    def claim_all() -> None:
        while (run := claims.claim("short", "somebody")) is not None:
            claimed.append(run.run_id)

    in_threads(4, claim_all)
    assert len(claimed) == 200
    assert max(Counter(claimed).values()) == 1


def test_the_same_key_launched_by_twenty_at_once_is_one_run() -> None:
    seen: list[uuid.UUID] = []
    in_threads(20, lambda: seen.append(launch("same").run_id))
    assert len(seen) == 20
    assert len(set(seen)) == 1
    assert Run.objects.count() == 1


def test_a_key_is_free_again_when_its_run_has_ended() -> None:
    first = launch()
    engine.cancel(first.run_id)
    assert launch().run_id != first.run_id


def test_a_rolled_back_request_launched_nothing() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        launch()
        raise ZeroDivisionError
    assert claims.claim("short", "somebody") is None


def test_each_claim_has_a_new_token_and_counts_an_attempt() -> None:
    launch()
    first = claims.claim("short", "one")
    assert first is not None
    Run.objects.update(lease_until=Clock() - timedelta(seconds=1))
    assert claims.sweep() == claims.Swept(requeued=1, failed=0)
    second = claims.claim("short", "two")
    assert second is not None
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.token != second.token
    assert second.lost_workers == 1


def test_a_queue_does_not_see_the_other_queues_runs() -> None:
    launch()
    assert claims.claim("long", "somebody") is None


def test_a_worker_that_lost_its_lease_publishes_nothing() -> None:
    launch()
    stalled = claims.claim("short", "stalled")
    assert stalled is not None
    Run.objects.update(lease_until=Clock() - timedelta(seconds=1))
    claims.sweep()
    other = claims.claim("short", "other")
    assert other is not None
    handle = engine.RunHandle(stalled)
    with pytest.raises(LostLease), handle.finishing():
        pytest.fail("the block must not run")
    assert not claims.renew(stalled)
    assert not claims.fail(stalled, "too late")
    other.refresh_from_db()
    assert (other.status, other.owner) == (RunStatus.STARTED, "other")


def test_an_error_while_publishing_undoes_the_end_as_well() -> None:
    launch()
    run = claims.claim("short", "somebody")
    assert run is not None
    with pytest.raises(ZeroDivisionError), engine.RunHandle(run).finishing():
        Run.objects.filter(run_id=run.run_id).update(error_message="half")
        raise ZeroDivisionError
    run.refresh_from_db()
    assert (run.status, run.error_message) == (RunStatus.STARTED, None)


def test_a_run_that_takes_ten_workers_with_it_fails_and_says_so() -> None:
    launch()
    for _ in range(10):
        assert claims.claim("short", "doomed") is not None
        Run.objects.update(lease_until=Clock() - timedelta(seconds=1))
        claims.sweep()
    run = Run.objects.get()
    assert run.status == RunStatus.FAILURE
    assert "lost 10 times" in str(run.error_message)
    assert claims.claim("short", "next") is None


def test_a_lease_that_is_still_good_is_left_alone() -> None:
    launch()
    assert claims.claim("short", "somebody") is not None
    assert claims.sweep() == claims.Swept(requeued=0, failed=0)


def test_a_run_whose_process_is_gone_does_not_wait_for_its_lease() -> None:
    launch()
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert claims.claim("short", f"{socket.gethostname()}:{dead.stdout.strip()}") is not None
    engine.sweep()
    assert Run.objects.get().status == RunStatus.PENDING
    assert claims.claim("short", engine.process_name()) is not None
    engine.sweep()
    assert Run.objects.get().status == RunStatus.STARTED
