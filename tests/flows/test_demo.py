"""The real stack, supervisor to scheduler, driven over HTTP as `make demo` does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tippers.demo.client import Api
from tippers.embedded.home import CHECKOUT, Home
from tippers.embedded.postgres import Cluster
from tippers.embedded.supervisor import Background
from tippers.sample.campus import TRUE_TYPES_FILE

PASSWORD = "a scratch password"
SIZE = {"DEMO_DEVICES": "250", "DEMO_ROOMS": "24", "DEMO_DAYS": "21"}
OURS = ("DATABASE_URL", "TIPPERS_DB_URL", "REDIS_URL", "SECRET_KEY", "TIPPERS_ENCRYPTION_KEYS")


@dataclass
class Stack:
    """A running stack and how to run the demo on it."""

    environment: dict[str, str]
    url: str
    home: Path

    def demo(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "manage.py", "demo", "--exit"],
            cwd=CHECKOUT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def api(self) -> Api:
        return Api.sign_in(self.url, "admin", PASSWORD)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = Home(tmp_path_factory.mktemp("flow") / "home")
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    environment |= SIZE | {
        "TIPPERS_HOME": str(home.path),
        "TIPPERS_ADMIN_PASSWORD": PASSWORD,
        "TIPPERS_MAX_CONCURRENT": "2",
        "PORT": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in OURS:
            patch.delenv(name, raising=False)
        with Background(home.path, environment) as started:
            yield Stack(environment, started.web_url, home.path)
        Cluster(home).remove()


def results(api: Api) -> dict[str, Any]:
    """Everything that both pipelines answer, without ids and times that may differ."""
    (concept,) = api.get("/concepts")
    base = f"/concepts/{concept['c_id']}"
    label_job = api.get(f"{base}/snorkel/jobs")[0]
    labels = api.get(f"{base}/snorkel/jobs/{label_job['job_id']}/results", limit=1000)
    bank_job = api.get(f"{base}/classifiers/jobs")[0]
    bank = api.get(f"{base}/classifiers/jobs/{bank_job['job_id']}/results")
    dataset = api.get("/occupancy/datasets")[0]
    occupancy = {
        space["space_id"]: api.get(
            f"/occupancy/datasets/{dataset['dataset_id']}/results",
            space_id=space["space_id"],
            limit=1000,
        )["rows"]
        for space in api.get(f"/spaces/{dataset['root_space_id']}/subtree")
    }
    return {
        "labels": {
            row["sample_id"]: (row["predicted_name"], round(row["confidence"] or 0, 9))
            for row in labels["predictions"]
        },
        "scores": {
            row["Model"]: {key: value for key, value in row.items() if key != "Time Taken"}
            for row in bank["model_scores"]
        },
        "filtering": bank["filtering_stats"],
        "occupancy": occupancy,
    }


def accuracies(stack: Stack) -> tuple[float, float]:
    """By the simulation's truth: labels, and the best classifier on its test devices."""
    table = pq.read_table(stack.home / "sample" / TRUE_TYPES_FILE)
    truth = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
    api = stack.api()
    (concept,) = api.get("/concepts")
    base = f"/concepts/{concept['c_id']}"
    labels = f"{base}/snorkel/jobs/{api.get(f'{base}/snorkel/jobs')[0]['job_id']}/results"
    bank = f"{base}/classifiers/jobs/{api.get(f'{base}/classifiers/jobs')[0]['job_id']}/predictions"
    labelled = [
        row for row in api.pages(labels, rows="predictions") if row["predicted_class"] != -1
    ]
    test = [row for row in api.pages(bank, rows="predictions") if row["split"] == "test"]
    assert len(test) > 40
    found = [
        sum(truth[row["sample_id"]] == row["predicted_name"] for row in rows) / len(rows)
        for rows in (labelled, test)
    ]
    return found[0], found[1]


def worker_children(stack: Stack) -> list[int]:
    """Process ids of this stack's Celery processes."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if (
            b"celery" in command
            and b"worker" in command
            and str(stack.home).encode() in environment
        ):
            found.append(int(folder.name))
    return found


def banks(stack: Stack) -> dict[int, int]:
    """Classifier banks of this stack's workers, candidates at work included, and whose they are."""
    workers = worker_children(stack)
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            said = (folder / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if b"labeling.bank" in said:
            worker = int(said[said.index(b"labeling.bank") + 1])
            if worker in workers:
                found[int(folder.name)] = worker
    return found


def wait_for(what: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.timeout(600)
def test_killed_workers_do_not_change_the_demos_results(stack: Stack) -> None:
    undisturbed = stack.demo()
    said, _ = undisturbed.communicate(timeout=280)
    assert undisturbed.returncode == 0, said
    for line in ("Label coverage", "classifiers were trained", "Occupancy per hour", "Sign in"):
        assert line in said
    labels, best = accuracies(stack)
    assert min(labels, best) >= 0.95
    assert f"Label model: {100 * labels:.1f} % of" in said
    assert f"is right on {100 * best:.1f} % of" in said
    expected = results(stack.api())
    assert len(expected["labels"]) > 200
    assert len(expected["scores"]) >= 30
    assert sum(row["number_connections"] for row in expected["occupancy"][1]) > 1000

    disturbed = stack.demo()
    kills = 0
    for _ in range(4):
        deadline = time.monotonic() + 6
        while disturbed.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if disturbed.poll() is not None:
            break
        for pid in worker_children(stack):
            os.kill(pid, signal.SIGKILL)
            kills += 1
    said, _ = disturbed.communicate(timeout=280)
    assert disturbed.returncode == 0, said
    assert kills >= 4, "the demo was over before a worker could be killed"
    assert results(stack.api()) == expected


def test_two_classifier_banks_work_at_once_and_are_gone_five_seconds_after_their_cancellation(
    stack: Stack,
) -> None:
    api = stack.api()
    (concept,) = api.get("/concepts")
    base = f"/concepts/{concept['c_id']}/classifiers"
    done = api.get(f"{base}/jobs")[0]
    asked = {name: done[name] for name in ("snorkel_job_id", "feature_ids")}
    jobs = [api.post(f"{base}/run", asked)["job_id"] for _ in range(2)]
    wait_for(lambda: len(set(banks(stack).values())) == 2, seconds=30)
    for job in jobs:
        assert api.post(f"{base}/jobs/{job}/cancel")["status"] == "CANCELLED"
    wait_for(lambda: not banks(stack), seconds=5)
    assert {api.get(f"{base}/jobs/{job}")["status"] for job in jobs} == {"CANCELLED"}


def test_a_failing_demo_says_so_with_its_exit_status(stack: Stack, tmp_path: Path) -> None:
    stack.environment["DEMO_DATA"] = str(tmp_path)
    failed = stack.demo()
    said, _ = failed.communicate(timeout=60)
    del stack.environment["DEMO_DATA"]
    assert failed.returncode != 0
    assert "neither space.csv nor space.parquet" in said
