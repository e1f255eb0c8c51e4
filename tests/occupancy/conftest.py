"""A sessions database of its own, with the tables that occupancy reads, empty for every test."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg2
import pytest
from django.conf import settings as django_settings
from psycopg2.extras import execute_values
from pytest_django import Settings

TABLES = """
    CREATE TABLE space (space_id int PRIMARY KEY, space_name varchar(200), parent_space_id int,
                        building_room varchar(200));
    CREATE TABLE user_ap_trajectory (mac_address text, sensor_id text, space_id int,
                                     start_time timestamp, end_time timestamp);
    CREATE INDEX ON user_ap_trajectory (space_id, start_time);
"""


class SessionsDatabase:
    """The database at `url`; what a test puts in, occupancy reads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = psycopg2.connect(url)
        self.connection.autocommit = True

    def execute(self, sql: str, params: Sequence[Any] = ()) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(sql, params or None)

    def add_spaces(self, parents: dict[int, int | None]) -> None:
        """Spaces named `space 7` with their parents."""
        rows = [
            (space, f"space {space}", parent, f"R-{space}") for space, parent in parents.items()
        ]
        with self.connection.cursor() as cursor:
            execute_values(cursor, "INSERT INTO space VALUES %s", rows)

    def add_sessions(self, rows: Iterable[tuple[str, int, str, str | None]]) -> None:
        """Sessions as (device, space, start, end); times are UTC."""
        with self.connection.cursor() as cursor:
            execute_values(
                cursor,
                "INSERT INTO user_ap_trajectory (mac_address, space_id, start_time, end_time) "
                "VALUES %s",
                list(rows),
            )


@pytest.fixture(scope="session")
def _sessions_server(django_db_setup: None) -> Iterator[SessionsDatabase]:
    default = django_settings.DATABASES["default"]
    server = (
        f"postgresql://{default['USER']}:{default['PASSWORD']}@{default['HOST']}:{default['PORT']}"
    )
    # Every folder that takes this fixture has a server of its own, alive at the same time.
    name = f"{default['NAME']}_sessions_{uuid.uuid4().hex[:8]}"
    admin = psycopg2.connect(f"{server}/postgres")
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    database = SessionsDatabase(f"{server}/{name}")
    database.execute(TABLES)
    yield database
    database.connection.close()
    with admin.cursor() as cursor:
        cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    admin.close()


@pytest.fixture
def sessions_db(_sessions_server: SessionsDatabase, settings: Settings) -> SessionsDatabase:
    """Empty tables, and the product looking at them."""
    _sessions_server.execute("TRUNCATE space, user_ap_trajectory")
    settings.TIPPERS_DB_URL = _sessions_server.url
    return _sessions_server


CAMPUS, BUILDING, FLOOR, OTHER_FLOOR, ROOM, OTHER_ROOM, ATTIC = 1, 10, 100, 101, 1000, 1001, 1010


@pytest.fixture
def campus(sessions_db: SessionsDatabase) -> SessionsDatabase:
    """One building with two floors; three rooms with sessions in January and March 2024."""
    sessions_db.add_spaces(
        {
            CAMPUS: None,
            BUILDING: CAMPUS,
            FLOOR: BUILDING,
            OTHER_FLOOR: BUILDING,
            ROOM: FLOOR,
            OTHER_ROOM: FLOOR,
            ATTIC: OTHER_FLOOR,
        }
    )
    sessions_db.add_sessions(
        [
            ("A", ROOM, "2024-01-10 08:10", "2024-01-10 10:20"),
            ("B", ROOM, "2024-01-10 09:00", "2024-01-10 10:00"),
            ("A", OTHER_ROOM, "2024-01-10 10:30", "2024-01-10 10:40"),
            ("C", ATTIC, "2024-01-10 10:00", "2024-01-10 10:05"),
            ("A", ROOM, "2024-03-05 12:00", "2024-03-05 12:30"),
        ]
    )
    return sessions_db


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
