"""Wi-Fi sessions and spaces from files into the tippers database, all of them or none.

Two tables and a view, in the shape that the occupancy queries and the analysts' SQL expect:

    space(space_id, space_name, parent_space_id, building_room)
    user_ap_trajectory(mac_address, sensor_id, space_id, start_time, end_time)
    user_location_trajectory: the same sessions under the name that older queries use

Session times are `timestamp without time zone` in UTC: a time with an offset is converted, one
without is taken as UTC. A session without an end is still open.
"""

import io
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from tippers.session_files import (
    SESSION_COLUMNS,
    SPACE_COLUMNS,
    LoadRefused,
    Progress,
    SessionStream,
    as_csv,
    read_spaces,
)

READER_ROLE = "tippers_reader"

TABLES = """
CREATE TABLE IF NOT EXISTS space (
    space_id integer PRIMARY KEY,
    space_name varchar(200),
    parent_space_id integer,
    building_room varchar(200)
);
CREATE TABLE IF NOT EXISTS user_ap_trajectory (
    mac_address text NOT NULL,
    sensor_id text,
    space_id integer NOT NULL,
    start_time timestamp NOT NULL,
    end_time timestamp
);
"""
# Occupancy pulls a window of sessions for many spaces and needs nothing but these four columns:
# with FREEZE below, the first index answers it without touching the table; the second finds when
# the last session of each space ends, the third which of the few that last over a day reach into a
# window, the last what lies in a space. Analysts' rules pull every session of some devices.
INDEXES = {
    "user_ap_trajectory_space_start": (
        "user_ap_trajectory (space_id, start_time) INCLUDE (end_time, mac_address)"
    ),
    "user_ap_trajectory_space_end": "user_ap_trajectory (space_id, end_time)",
    "user_ap_trajectory_long": (
        "user_ap_trajectory (space_id, start_time) INCLUDE (end_time, mac_address)"
        " WHERE end_time IS NULL OR end_time - start_time > interval '1 day'"
    ),
    "user_ap_trajectory_mac": "user_ap_trajectory (mac_address)",
    "space_parent": "space (parent_space_id)",
}
_VIEW = """
CREATE VIEW user_location_trajectory AS
SELECT mac_address, sensor_id, space_id, start_time, end_time FROM user_ap_trajectory
"""


@dataclass(frozen=True)
class Loaded:
    """What stands in the database now."""

    spaces: int
    sessions: int
    open_sessions: int


def load(
    url: str,
    *,
    spaces: Path,
    sessions: Path,
    replace: bool = False,
    origin: str = "",
    progress: Progress | None = None,
) -> Loaded:
    """Fill `space` and `user_ap_trajectory` of the database at `url` from the two files.

    `progress` hears (done, total) in bytes of a CSV file or rows of a Parquet file. Tables that
    hold rows are refused unless `replace`, which empties both in the same transaction. `origin` is
    remembered with the table, see `origin_of`. Raises LoadRefused, and then the database is as it
    was.
    """
    space_table = read_spaces(spaces)
    stream = SessionStream(sessions, space_table.column("space_id"), spaces.name, progress)
    try:
        with (
            closing(psycopg2.connect(url)) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            _make_room(cursor, replace=replace)
            _copy(cursor, "space", SPACE_COLUMNS, io.BytesIO(as_csv(space_table)))
            _copy(cursor, "user_ap_trajectory", SESSION_COLUMNS, stream)
            stream.raise_refused()
            _finish(cursor, origin)
    except psycopg2.errors.LockNotAvailable as error:
        raise LoadRefused(
            "The session tables are being read by a query that takes long; try again when it ends"
        ) from error
    except psycopg2.Error as error:
        stream.raise_refused()
        raise LoadRefused(f"The database refused: {str(error).strip()}") from error
    return Loaded(space_table.num_rows, stream.loaded, stream.open_sessions)


def origin_of(url: str) -> str | None:
    """The `origin` of the sessions in the database at `url`; None when it holds none."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('user_ap_trajectory') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return None
        cursor.execute("SELECT EXISTS (SELECT FROM user_ap_trajectory)")
        if not cursor.fetchone()[0]:
            return None
        cursor.execute("SELECT obj_description('user_ap_trajectory'::regclass)")
        return cursor.fetchone()[0] or ""


def _make_room(cursor: Any, *, replace: bool) -> None:
    """Two empty tables without our indexes, which are quicker to build than to keep up to date."""
    cursor.execute("SET LOCAL lock_timeout = '60s'")
    cursor.execute("SET LOCAL client_min_messages = warning")
    cursor.execute(TABLES)
    if not replace:
        for table in ("space", "user_ap_trajectory"):
            cursor.execute(f"SELECT EXISTS (SELECT FROM {table})")  # noqa: S608 - two literals
            if cursor.fetchone()[0]:
                raise LoadRefused(
                    f"The table {table} already holds rows, and loading again would double them: "
                    "--replace empties both tables first"
                )
    cursor.execute("TRUNCATE space, user_ap_trajectory")
    for index in INDEXES:
        cursor.execute(f"DROP INDEX IF EXISTS {index}")


def _copy(cursor: Any, table: str, columns: tuple[str, ...], source: Any) -> None:
    # FREEZE marks the rows visible to all at once (the table was emptied in this transaction), so
    # index-only scans work from the first query on, without waiting for a VACUUM.
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN WITH (FORMAT csv, FREEZE)"
    cursor.copy_expert(statement, source, size=1 << 18)


def _finish(cursor: Any, origin: str) -> None:
    for index, place in INDEXES.items():
        cursor.execute(f"CREATE INDEX {index} ON {place}")
    cursor.execute("SELECT to_regclass('user_location_trajectory') IS NULL")
    if cursor.fetchone()[0]:
        cursor.execute(_VIEW)
    cursor.execute("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", [READER_ROLE])
    if cursor.fetchone()[0]:
        cursor.execute(
            f"GRANT SELECT ON space, user_ap_trajectory, user_location_trajectory TO {READER_ROLE}"
        )
    cursor.execute("COMMENT ON TABLE user_ap_trajectory IS %s", [origin or None])
    cursor.execute("ANALYZE space, user_ap_trajectory")
