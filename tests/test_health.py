"""What the stack says of itself."""

import pytest
from rest_framework.test import APIClient

from tippers import health
from tippers.runs import claims

pytestmark = pytest.mark.django_db(transaction=True)


def forget() -> None:
    """An answer is kept for seconds; the next request asks anew."""
    health._last = health._Answer([], 0.0)


@pytest.fixture(autouse=True)
def _nothing_asked_yet() -> None:
    forget()


def test_the_web_server_answers_and_says_what_is_missing(stranger: APIClient) -> None:
    answer = stranger.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "healthy"
    assert "no worker" in answer.json()["details"]["worker"]
    assert stranger.get("/health/ready").status_code == 503


def test_it_is_ready_once_a_worker_and_the_scheduler_were_seen(stranger: APIClient) -> None:
    claims.record_heartbeat("host:1", "worker", "short,long")
    assert stranger.get("/health/ready").status_code == 503
    claims.record_heartbeat("host:2", "beat")
    forget()
    answer = stranger.get("/health/ready")
    assert (answer.status_code, answer.json()["details"]["broker"]) == (200, "answers")
