"""Runs over REST, at both of their addresses."""

import uuid

import pytest
from rest_framework.test import APIClient

from tests.runs import jobs  # noqa: F401 - declares them
from tippers.runs import engine

pytestmark = pytest.mark.django_db(transaction=True)
PREFIXES = pytest.mark.parametrize("prefix", ["/runs", "/dagster/runs"])


@PREFIXES
def test_a_run_is_followed_from_launch_to_end(api: APIClient, prefix: str) -> None:
    run = engine.launch("break_down", key="k", args={"until_attempt": 0})
    waiting = api.get(f"{prefix}/{run.run_id}").json()
    assert waiting["run_id"] == str(run.run_id)
    assert (waiting["status"], waiting["start_time"], waiting["end_time"]) == (
        "PENDING",
        None,
        None,
    )
    engine.perform_next("short")
    ended = api.get(f"{prefix}/{run.run_id}").json()
    assert (ended["status"], ended["error_message"]) == ("SUCCESS", None)
    assert ended["start_time"].endswith("Z")
    logs = api.get(f"{prefix}/{run.run_id}/logs").json()
    assert logs["run_id"] == str(run.run_id)
    assert logs["logs"][-1]["message"] == "about to divide"
    assert set(logs["logs"][0]) == {"timestamp", "level", "message"}


@PREFIXES
def test_the_list_is_wrapped_newest_first_and_filtered(api: APIClient, prefix: str) -> None:
    ended = engine.launch("refuse", key="a", args={"sentence": "no"})
    engine.perform_next("short")
    waiting = engine.launch("refuse", key="b", args={"sentence": "no"})
    listed = api.get(prefix).json()
    assert [run["run_id"] for run in listed["runs"]] == [str(waiting.run_id), str(ended.run_id)]
    failed = api.get(f"{prefix}?status_filter=FAILURE").json()["runs"]
    assert [run["run_id"] for run in failed] == [str(ended.run_id)]
    assert len(api.get(f"{prefix}?limit=1").json()["runs"]) == 1
    wrong = api.get(f"{prefix}?status_filter=DONE")
    assert wrong.status_code == 400
    assert "SUCCESS" in wrong.json()["errors"]["status_filter"][0]


@PREFIXES
def test_cancel_answers_at_once_and_a_second_time_409(api: APIClient, prefix: str) -> None:
    run = engine.launch("refuse", key="k", args={"sentence": "no"})
    first = api.post(f"{prefix}/{run.run_id}/cancel")
    assert (first.status_code, first.json()["status"]) == (200, "CANCELLED")
    second = api.post(f"{prefix}/{run.run_id}/cancel")
    assert second.status_code == 409
    assert second.json()["code"] == "conflict"


def test_an_unknown_run_is_404_in_the_one_shape(api: APIClient) -> None:
    answer = api.get(f"/runs/{uuid.uuid4()}")
    assert answer.status_code == 404
    assert set(answer.json()) == {"detail", "code"}


def test_a_viewer_may_look_and_not_cancel(viewer: APIClient, stranger: APIClient) -> None:
    run = engine.launch("refuse", key="k", args={"sentence": "no"})
    assert viewer.get(f"/runs/{run.run_id}").status_code == 200
    assert viewer.post(f"/runs/{run.run_id}/cancel").status_code == 403
    assert stranger.get(f"/runs/{run.run_id}").status_code == 401


def test_health_says_when_nothing_will_start(api: APIClient) -> None:
    health = api.get("/dagster/health").json()
    assert "no worker" in health["status"]
    assert set(health) == {"status", "dagster_host", "dagster_port"}
