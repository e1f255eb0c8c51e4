"""Loading sessions: what is taken, what is refused and how it is told, on a real PostgreSQL."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command
from pytest_django.fixtures import Settings

from occupancy.models import OccupancyDataset, OccupancySpaceChunk
from tests.scratch import scratch_database
from tippers.runs.models import Run
from tippers.session_files import LoadRefused
from tippers.sessions import Loaded, load, origin_of

SPACES = """space_id,space_name,parent_space_id,building_room
1,Campus,,CAMPUS
2,"Hall, east",1,H
3,Hall 101,2,H-101
"""
SESSIONS = """mac_address,sensor_id,space_id,start_time,end_time
aa,ap-1,3,2024-03-01 10:00:00,2024-03-01 11:30:00
aa,,3,2024-03-01T12:00:00Z,2024-03-01T12:00:00Z
"b,b",ap-2,2,2024-03-01 10:00:00+09:00,2024-03-01 10:00:00.25+09
cc,ap-1,3,2024-03-01 23:59,
"""
ROWS = [
    ("aa", "ap-1", 3, "2024-03-01 10:00:00", "2024-03-01 11:30:00"),
    ("aa", None, 3, "2024-03-01 12:00:00", "2024-03-01 12:00:00"),
    ("b,b", "ap-2", 2, "2024-03-01 01:00:00", "2024-03-01 01:00:00.25"),
    ("cc", "ap-1", 3, "2024-03-01 23:59:00", None),
]
ALL = "SELECT mac_address, sensor_id, space_id, start_time::text, end_time::text FROM {} ORDER BY 1, 4"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with scratch_database() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """The scratch database without any of our tables."""
    query(server, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return server


def query(url: str, sql: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path, SPACES, SESSIONS)


def write(folder: Path, spaces: str, sessions: str) -> tuple[Path, Path]:
    (folder / "space.csv").write_text(spaces)
    (folder / "sessions.csv").write_text(sessions)
    return folder / "space.csv", folder / "sessions.csv"


def refused(url: str, folder: Path, *, spaces: str = SPACES, sessions: str = SESSIONS) -> str:
    """The sentence with which these files are refused; nothing may have been loaded."""
    space_file, session_file = write(folder, spaces, sessions)
    with pytest.raises(LoadRefused) as caught:
        load(url, spaces=space_file, sessions=session_file)
    assert query(url, "SELECT to_regclass('space'), to_regclass('user_ap_trajectory')") == [
        (None, None)
    ]
    return caught.value.detail


def test_csv_rows_arrive_in_utc_with_open_sessions_and_quoted_text(
    url: str, files: tuple[Path, Path]
) -> None:
    assert load(url, spaces=files[0], sessions=files[1]) == Loaded(3, 4, 1)
    assert query(url, ALL.format("user_ap_trajectory")) == ROWS
    assert query(url, "SELECT * FROM space ORDER BY 1") == [
        (1, "Campus", None, "CAMPUS"),
        (2, "Hall, east", 1, "H"),
        (3, "Hall 101", 2, "H-101"),
    ]


def test_times_are_stored_without_a_zone_and_the_server_zone_does_not_matter(
    url: str, files: tuple[Path, Path]
) -> None:
    name = url.rsplit("/", 1)[1]
    query(url, f"ALTER DATABASE {name} SET timezone TO 'Asia/Seoul'")
    load(url, spaces=files[0], sessions=files[1])
    types = query(
        url,
        "SELECT DISTINCT data_type FROM information_schema.columns "
        "WHERE table_name = 'user_ap_trajectory' AND column_name LIKE '%time'",
    )
    assert types == [("timestamp without time zone",)]
    assert query(url, ALL.format("user_ap_trajectory")) == ROWS
    query(url, f"ALTER DATABASE {name} RESET timezone")


def test_parquet_loads_the_same_rows_as_csv(
    url: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    seoul = pa.timestamp("ns", "Asia/Seoul")
    starts = [1_709_287_200_000, 1_709_294_400_000, 1_709_254_800_000, 1_709_337_540_000]
    ends = [1_709_292_600_000, 1_709_294_400_000, 1_709_254_800_250, None]

    def moments(milliseconds: Sequence[int | None]) -> pa.Array:
        return pa.array([at if at is None else at * 1_000_000 for at in milliseconds], seoul)

    pq.write_table(
        pa.table(
            {
                "mac_address": pa.array(["aa", "aa", "b,b", "cc"]).dictionary_encode(),
                "sensor_id": ["ap-1", None, "ap-2", "ap-1"],
                "space_id": pa.array([3, 3, 2, 3], pa.int16()),
                "start_time": moments(starts),
                "end_time": moments(ends),
                "signal": [1, 2, 3, 4],
            }
        ),
        tmp_path / "sessions.parquet",
    )
    pq.write_table(
        pa.table({"space_id": [1, 2, 3], "parent_space_id": pa.array([None, 1.0, 2.0])}),
        tmp_path / "space.parquet",
    )
    loaded = load(url, spaces=tmp_path / "space.parquet", sessions=tmp_path / "sessions.parquet")
    assert loaded == Loaded(3, 4, 1)
    assert query(url, ALL.format("user_ap_trajectory")) == ROWS
    assert query(url, "SELECT space_id, parent_space_id FROM space ORDER BY 1") == [
        (1, None),
        (2, 1),
        (3, 2),
    ]


def test_the_older_name_is_a_view_of_the_same_sessions(url: str, files: tuple[Path, Path]) -> None:
    load(url, spaces=files[0], sessions=files[1])
    assert query(url, ALL.format("user_location_trajectory")) == ROWS


def test_a_window_is_answered_from_the_index_alone_right_after_loading(
    url: str, tmp_path: Path
) -> None:
    lines = [
        f"m{n},,{3 if n % 50 else 2},2024-03-{1 + n % 28:02d} 10:00:00,2024-03-{1 + n % 28:02d} 11:00:00"
        for n in range(20_000)
    ]
    header = SESSIONS.splitlines()[0]
    spaces, sessions = write(tmp_path, SPACES, "\n".join([header, *lines]))
    load(url, spaces=spaces, sessions=sessions)
    plan = query(
        url,
        "EXPLAIN SELECT mac_address, start_time, end_time FROM user_ap_trajectory "
        "WHERE space_id = 2 AND start_time < '2024-03-02' AND end_time > '2024-03-01'",
    )
    assert "Index Only Scan" in plan[0][0]


def test_loading_on_top_of_rows_is_refused_and_replace_is_named(
    url: str, files: tuple[Path, Path]
) -> None:
    load(url, spaces=files[0], sessions=files[1])
    with pytest.raises(LoadRefused, match="--replace"):
        load(url, spaces=files[0], sessions=files[1])
    assert query(url, "SELECT COUNT(*) FROM user_ap_trajectory") == [(4,)]


def test_replace_leaves_only_the_new_rows(
    url: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    load(url, spaces=files[0], sessions=files[1], origin="the first")
    assert origin_of(url) == "the first"
    session = "mac_address,space_id,start_time,end_time\nzz,7,2024-01-01 00:00:00,"
    less = write(tmp_path, "space_id,parent_space_id\n7,\n", session)
    assert load(url, spaces=less[0], sessions=less[1], replace=True) == Loaded(1, 1, 1)
    assert query(url, "SELECT space_id FROM space") == [(7,)]
    assert query(url, "SELECT mac_address FROM user_location_trajectory") == [("zz",)]
    assert origin_of(url) == ""


def test_a_refused_replacement_leaves_what_was_there(
    url: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    assert origin_of(url) is None
    load(url, spaces=files[0], sessions=files[1])
    bad = write(tmp_path, SPACES, SESSIONS + "dd,,99,2024-03-01 10:00:00,\n")
    with pytest.raises(LoadRefused):
        load(url, spaces=bad[0], sessions=bad[1], replace=True)
    assert query(url, ALL.format("user_ap_trajectory")) == ROWS


def test_bad_rows_are_named_by_line_and_nothing_is_loaded(url: str, tmp_path: Path) -> None:
    sessions = (
        SESSIONS
        + """dd,,3,2024-03-01 10:00:00,2024-03-01 09:59:59
ee,,99,2024-03-01 10:00:00,2024-03-01 11:00:00

ff,,3,yesterday,2024-03-01 11:00:00
gg,,3,2024-03-01 10:00:00,2024-02-30 11:00:00
,,3,2024-03-01 10:00:00,2024-03-01 11:00:00
hh,3
  ,,three,,2024-03-01 11:00:00
ii,,3,,2024-03-01 11:00:00
jj,,3,2024-03-01 10:00:00,2024-03-01 11:00:00
"""
    )
    ends, starts = "2024-03-01 09:59:59", "2024-03-01 10:00:00"
    assert refused(url, tmp_path, sessions=sessions).splitlines() == [
        "Nothing was loaded: 8 bad rows in sessions.csv",
        f"  line 6: the session ends ({ends}) before it starts ({starts})",
        "  line 7: space_id '99' is not in space.csv",
        "  line 9: start_time 'yesterday' is not a time",
        "  line 10: end_time '2024-02-30 11:00:00' is not a time",
        "  line 11: mac_address is missing",
        "  line 12: has 2 columns, not 5",
        "  line 13: mac_address is missing",
        "  line 14: start_time is missing",
    ]


def test_twenty_bad_rows_are_shown_and_all_are_counted_across_batches(
    url: str, tmp_path: Path
) -> None:
    header = SESSIONS.splitlines()[0]
    good = "aa,,3,2024-03-01 10:00:00,2024-03-01 11:00:00"
    bad = "aa,,4,2024-03-01 10:00:00,2024-03-01 11:00:00"
    lines = [header] + ([good] * 999 + [bad]) * 300
    said = refused(url, tmp_path, sessions="\n".join(lines)).splitlines()
    assert said[0] == "Nothing was loaded: 300 bad rows in sessions.csv"
    assert said[1] == "  line 1001: space_id '4' is not in space.csv"
    assert said[20] == "  line 20001: space_id '4' is not in space.csv"
    assert said[21:] == ["  ... and 280 more"]


def test_parquet_rows_are_named_by_number(url: str, tmp_path: Path) -> None:
    spaces, _ = write(tmp_path, SPACES, SESSIONS)
    file = tmp_path / "sessions.parquet"
    pq.write_table(
        pa.table(
            {
                "mac_address": ["aa", None],
                "space_id": [3, 3],
                "start_time": ["2024-03-01 10:00:00", "2024-03-01T10:00:00+01:00"],
                "end_time": ["noon", None],
            }
        ),
        file,
    )
    with pytest.raises(LoadRefused) as caught:
        load(url, spaces=spaces, sessions=file)
    assert caught.value.detail.splitlines()[1:] == [
        "  row 1: end_time 'noon' is not a time",
        "  row 2: mac_address is missing",
    ]


@pytest.mark.parametrize(
    ("spaces", "said"),
    [
        ("space_id,parent_space_id\n1,\n2,1\n2,1\n", "space_id stands more than once: 2"),
        ("space_id,parent_space_id\n1,\n2,9\n", "unknown parent_space_id 9 of space 2"),
        ("space_id,parent_space_id\n1,\n2,4\n3,2\n4,3\n5,4\n", "within each other: 2, 3, 4"),
        ("space_id,parent_space_id\n1,\n2,2\n", "within each other: 2"),
        ("space_id,parent_space_id\n1,\nx,1\n", "line 3: space_id 'x' is not a whole number"),
        ("space_id,parent_space_id\n1,\n2,y\n", "line 3: parent_space_id 'y' is not a whole"),
        (f"space_id,space_name,parent_space_id\n1,{'n' * 201},\n", "longer than 200 characters"),
        ("space_id,parent_space_id\n", "holds no space"),
        ("space_id\n1\n", "lacks the column parent_space_id; it has space_id"),
        ("", "lacks the columns space_id, parent_space_id; it has none"),
    ],
)
def test_a_tree_of_spaces_that_is_none_is_refused(
    url: str, tmp_path: Path, spaces: str, said: str
) -> None:
    assert said in refused(url, tmp_path, spaces=spaces)


def test_a_file_that_is_missing_or_of_another_kind_is_refused_by_name(
    url: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(LoadRefused, match=r"nothing\.csv cannot be read: No such file"):
        load(url, spaces=files[0], sessions=tmp_path / "nothing.csv")
    picture = tmp_path / "sessions.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(LoadRefused, match="neither Parquet nor CSV"):
        load(url, spaces=files[0], sessions=picture)
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(LoadRefused, match=r"torn\.parquet cannot be read"):
        load(url, spaces=files[0], sessions=torn)


def test_the_reader_role_may_read_what_was_loaded(url: str, files: tuple[Path, Path]) -> None:
    made = not query(url, "SELECT 1 FROM pg_roles WHERE rolname = 'tippers_reader'")
    if made:
        query(url, "CREATE ROLE tippers_reader")
    try:
        load(url, spaces=files[0], sessions=files[1])
        for table in ("space", "user_ap_trajectory", "user_location_trajectory"):
            assert query(
                url,
                f"SELECT has_table_privilege('tippers_reader', '{table}', 'SELECT'), "
                f"has_table_privilege('tippers_reader', '{table}', 'INSERT')",
            ) == [(True, False)]
    finally:
        if made:
            query(url, "DROP OWNED BY tippers_reader; DROP ROLE tippers_reader")


@pytest.mark.django_db
def test_the_command_loads_into_the_home_s_database_and_says_what_it_did(
    url: str,
    files: tuple[Path, Path],
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings.TIPPERS_DB_URL = url
    arguments = ["load_sessions", "--spaces", str(files[0]), "--sessions", str(files[1])]
    call_command(*arguments, stdout=StringIO())
    assert "Loaded 3 spaces and 4 sessions, 1 of them still open." in capsys.readouterr().out
    with pytest.raises(CommandError, match="already holds rows"):
        call_command(*arguments)
    call_command(*arguments, "--replace")


@pytest.mark.django_db(transaction=True)
def test_replacing_sessions_forgets_the_occupancy_computed_from_the_old_ones(
    url: str, files: tuple[Path, Path], settings: Settings
) -> None:
    settings.TIPPERS_DB_URL = url
    start, end = datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC)
    dataset = OccupancyDataset.objects.create(
        name="March", root_space_id=1, status="COMPLETED", chunks_start=start, chunks_end=end
    )
    OccupancySpaceChunk.objects.create(
        space_id=1, interval_seconds=3600, chunk_start=start, chunk_end=end,
        space_type="derived", status="COMPLETED", provisional=False,
    )  # fmt: skip
    arguments = ["load_sessions", "--spaces", str(files[0]), "--sessions", str(files[1])]
    call_command(*arguments)
    assert OccupancySpaceChunk.objects.count() == 1
    call_command(*arguments, "--replace")
    assert OccupancySpaceChunk.objects.count() == 0
    dataset.refresh_from_db()
    assert dataset.status == "RUNNING"
    assert Run.objects.filter(job="occupancy_plan", status="PENDING").count() == 1


def test_the_command_without_a_database_says_how_to_get_one(
    files: tuple[Path, Path], settings: Settings
) -> None:
    settings.TIPPERS_DB_URL = ""
    with pytest.raises(CommandError, match=r"make serve.*TIPPERS_DB_URL"):
        call_command("load_sessions", "--spaces", str(files[0]), "--sessions", str(files[1]))


def test_progress_is_told_up_to_the_whole(url: str, files: tuple[Path, Path]) -> None:
    heard: list[tuple[int, int]] = []
    load(url, spaces=files[0], sessions=files[1], progress=lambda *at: heard.append(at))
    assert heard[-1][0] == heard[-1][1] == files[1].stat().st_size
