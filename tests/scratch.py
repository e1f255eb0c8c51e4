"""A database of one test's own on the server that the tests stand on."""

import os
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg2


@contextmanager
def scratch_database() -> Iterator[str]:
    """The URL of an empty database that is dropped afterwards."""
    parts = urlsplit(os.environ["DATABASE_URL"])
    name = f"scratch_{uuid.uuid4().hex[:12]}"
    # The database that the URL names need not exist: Django's tests make one of their own.
    maintenance = urlunsplit(parts._replace(path="/postgres"))
    with closing(psycopg2.connect(maintenance)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            try:
                yield urlunsplit(parts._replace(path=f"/{name}"))
            finally:
                cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
