"""A database for users' queries: the one that the tests have anyway, and a role that may read."""

import uuid
from collections.abc import Iterator

import psycopg2
import pytest
from django.db import connection
from pytest_django.fixtures import Settings

from connections.query import Target

NASTY = "p w@%41'\"\\/:?#&=é漢\u202e$$"


@pytest.fixture
def target(django_db_setup: None, settings: Settings) -> Target:
    """The test database as its owner; loopback is admitted."""
    settings.ALLOWED_DB_NETWORKS = ["127.0.0.0/8", "::1/128"]
    server = connection.settings_dict
    return Target(
        dialect="postgresql",
        host=server["HOST"],
        port=int(server["PORT"]),
        database=server["NAME"],
        user=server["USER"],
        password=server["PASSWORD"],
    )


@pytest.fixture
def owner(target: Target) -> Iterator["psycopg2.extensions.cursor"]:
    """A cursor outside the fence, to prepare and to look; commits as it goes."""
    session = psycopg2.connect(
        host=target.host,
        port=target.port,
        dbname=target.database,
        user=target.user,
        password=target.password,
    )
    session.autocommit = True
    with session.cursor() as cursor:
        yield cursor
    session.close()


@pytest.fixture
def reader(target: Target, owner: "psycopg2.extensions.cursor") -> Iterator[Target]:
    """The same database as a role that can only read, whose password is hard to carry."""
    role = f"reader_{uuid.uuid4().hex[:8]}"
    owner.execute(f'CREATE ROLE "{role}" LOGIN PASSWORD %s', [NASTY])
    yield Target("postgresql", target.host, target.port, target.database, role, NASTY)
    owner.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')
