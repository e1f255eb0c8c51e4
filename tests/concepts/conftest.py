"""A small source of sessions beside the product's own tables, and a concept that reads it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection
from pytest_django.fixtures import Settings
from rest_framework.test import APIClient

from tests.conftest import body

SESSIONS = [
    # mac, space, start, end
    ("aa", 1, "2024-01-01 00:00", "2024-01-01 02:00"),
    ("aa", 1, "2024-01-02 10:00", "2024-01-02 10:30"),
    ("bb", 1, "2024-01-01 09:00", "2024-01-01 17:00"),
    ("bb", 2, "2024-01-02 09:00", "2024-01-02 12:00"),
    ("cc", 3, "2024-01-01 12:00", "2024-01-01 12:05"),
    ("it's", 2, "2024-01-03 00:00", "2024-01-03 00:01"),
    (None, 2, "2024-01-03 00:00", "2024-01-03 00:01"),
]


@pytest.fixture
def sessions(db: None) -> Iterator[list[tuple[Any, ...]]]:
    """The table `wifi` (mac, space, began, ended) for the test; a run sees it if it is committed."""
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS wifi")
        cursor.execute("CREATE TABLE wifi (mac text, space int, began timestamp, ended timestamp)")
        cursor.executemany("INSERT INTO wifi VALUES (%s, %s, %s, %s)", SESSIONS)
    yield SESSIONS
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE wifi")


@dataclass
class Campus:
    """A concept with a connection to the sessions, driven through the API."""

    api: APIClient
    conn_id: int
    c_id: int
    perform_all: Callable[[], int]

    @property
    def root(self) -> str:
        return f"/concepts/{self.c_id}"

    def create(self, family: str, **fields: Any) -> dict[str, Any]:
        """POST one that must be accepted."""
        response = self.api.post(f"{self.root}/{family}", fields)
        assert response.status_code == 201, response.content
        created: dict[str, Any] = body(response)
        return created

    def index(self, sql: str = "SELECT DISTINCT mac FROM wifi ORDER BY mac", **fields: Any) -> Any:
        fields = {"name": "macs", "conn_id": self.conn_id, "sql_query": sql} | fields
        return self.create("indexes", **fields)

    def materialized_index(self, **fields: Any) -> Any:
        index = self.index(**fields)
        self.materialize("indexes", index["index_id"])
        return self.get("indexes", index["index_id"])

    def get(self, family: str, pk: int) -> Any:
        response = self.api.get(f"{self.root}/{family}/{pk}")
        assert response.status_code == 200, response.content
        return body(response)

    def patch(self, family: str, pk: int, **fields: Any) -> Any:
        response = self.api.patch(f"{self.root}/{family}/{pk}", fields)
        assert response.status_code == 200, response.content
        return body(response)

    def launch(self, family: str, pk: int) -> Any:
        response = self.api.post(f"{self.root}/{family}/{pk}/materialize")
        assert response.status_code == 200, response.content
        return body(response)

    def run(self, run_id: str) -> Any:
        return body(self.api.get(f"/dagster/runs/{run_id}"))

    def materialize(self, family: str, pk: int) -> Any:
        """Materialize to the end; the run."""
        launched = self.launch(family, pk)
        self.perform_all()
        return self.run(launched["dagster_run_id"])

    def rows(self, family: str, pk: int) -> Any:
        response = self.api.get(f"{self.root}/{family}/{pk}/preview?limit=1000")
        assert response.status_code == 200, response.content
        return body(response)["rows"]


@pytest.fixture
def campus(
    sessions: list[tuple[Any, ...]],
    settings: Settings,
    api: APIClient,
    perform_all: Callable[[], int],
) -> Campus:
    settings.ALLOWED_DB_NETWORKS = ["127.0.0.0/8", "::1/128"]
    server = connection.settings_dict
    answer = api.post(
        "/database-connections",
        {
            "name": "sessions",
            "connection_type": "postgresql",
            "host": server["HOST"],
            "port": int(server["PORT"]),
            "database": server["NAME"],
            "user": server["USER"],
            "password": server["PASSWORD"],
        },
    )
    assert answer.status_code == 201, answer.content
    concept = api.post("/concepts", {"name": "device_classification"})
    return Campus(api, body(answer)["conn_id"], body(concept)["c_id"], perform_all)
