"""Occupancy in the hard cases, over REST: odd sessions, times and zones, broken trees, slow sources."""

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta

import psycopg2
import pytest
from rest_framework.test import APIClient

from occupancy import planning
from occupancy.models import INTERVALS, OccupancyDataset, OccupancySpaceChunk
from tests.conftest import body
from tests.occupancy.conftest import ATTIC, CAMPUS, FLOOR, OTHER_ROOM, ROOM, SessionsDatabase, utc
from tests.occupancy.test_datasets import JANUARY, Perform, created, results, rows

pytestmark = pytest.mark.django_db(transaction=True)

Session = tuple[str, int, str, str | None]


# --- sessions -----------------------------------------------------------------------------------


def counted(
    sessions: list[Session], interval: timedelta, first: datetime, last: datetime
) -> list[tuple[str, int]]:
    """Bin by bin and session by session, as the rule reads: it begins before the bin's end and ends
    after the bin's beginning. Only bins with somebody in them."""
    found = []
    begin = first
    while begin < last:
        devices = {
            device
            for device, _, start, end in sessions
            if end is not None and utc(start) < begin + interval and utc(end) > begin
        }
        if devices:
            found.append((f"{begin:%Y-%m-%dT%H:%M:%S}", len(devices)))
        begin += interval
    return found


VECTOR: list[Session] = [
    ("A", ROOM, "2024-01-10 00:10", "2024-01-10 02:20"),
    ("A", ROOM, "2024-01-10 00:20", "2024-01-10 00:40"),  # overlaps another of the same device
    ("B", ROOM, "2024-01-10 01:00", "2024-01-10 02:00"),
    ("B", ROOM, "2024-01-10 01:00", "2024-01-10 02:00"),  # the same row twice
    ("C", ROOM, "2024-01-10 03:30", "2024-01-10 03:30"),  # no length, inside a bin
    ("D", ROOM, "2024-01-10 04:00", "2024-01-10 04:00"),  # no length, on a bin's edge
    ("E", ROOM, "2024-01-09 23:30", "2024-01-10 00:05"),  # over midnight
    ("F", ROOM, "2024-01-10 05:50", "2024-01-10 07:00"),  # ends on an edge
]


def test_the_design_s_vector_holds_in_windows_of_a_day(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    campus.execute("TRUNCATE user_ap_trajectory")
    campus.add_sessions(VECTOR)
    morning = {"start_time": "2024-01-10T00:00:00Z", "end_time": "2024-01-10T06:00:00Z"}
    dataset = created(api, **morning, chunk_days=1)
    perform_all()
    assert rows(api, dataset, ROOM) == [
        ("2024-01-10T00:00:00", 2, 2),
        ("2024-01-10T01:00:00", 2, 2),
        ("2024-01-10T02:00:00", 1, 1),
        ("2024-01-10T03:00:00", 1, 1),
        ("2024-01-10T05:00:00", 1, 1),
    ]


def test_addresses_of_any_length_and_script_are_devices_of_their_own(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    """Joined they would be the same text twice over; one is empty, two are not ASCII."""
    campus.execute("TRUNCATE user_ap_trajectory")
    names = ["ab", "c", "a", "bc", "", "Gerät", "Ger", "ät", "设备"]
    span = ("2024-01-10 01:10", "2024-01-10 01:20")
    campus.add_sessions([(name, room, *span) for name in names for room in (ROOM, OTHER_ROOM)])
    campus.add_sessions([(names[0], ROOM, "2024-01-10 01:30", "2024-01-10 02:30")])
    dataset = created(api, **JANUARY)
    perform_all()
    assert rows(api, dataset, ROOM) == [
        ("2024-01-10T01:00:00", 9, 9),
        ("2024-01-10T02:00:00", 1, 1),
    ]
    assert rows(api, dataset, FLOOR)[0] == ("2024-01-10T01:00:00", 18, 9)


@pytest.fixture
def long_sessions(campus: SessionsDatabase) -> list[Session]:
    """Sessions over midnights, over a leap day, over windows; some short ones between them."""
    campus.execute("TRUNCATE user_ap_trajectory")
    sessions: list[Session] = [
        ("A", ROOM, "2024-02-27 22:10", "2024-03-02 03:05"),
        ("B", ROOM, "2024-02-28 23:59:59.999999", "2024-02-29 00:00:00.000001"),
        ("C", ROOM, "2024-02-29 00:00", "2024-03-01 00:00"),
        ("D", ROOM, "2024-02-29 12:14", "2024-02-29 12:16"),
        ("E", ROOM, "2024-02-29 12:15", "2024-02-29 12:30"),
        ("D", ROOM, "2024-03-01 07:59", "2024-03-01 08:00"),
    ]
    campus.add_sessions(sessions)
    return sessions


@pytest.mark.parametrize("interval", INTERVALS)
def test_every_width_counts_over_midnights_windows_and_a_leap_day(
    api: APIClient, long_sessions: list[Session], perform_all: Perform, interval: int
) -> None:
    dataset = created(
        api,
        root_space_id=FLOOR,
        interval_seconds=interval,
        chunk_days=1,
        start_time="2024-02-27T00:00:00Z",
        end_time="2024-03-03T00:00:00Z",
    )
    perform_all()
    expected = counted(
        long_sessions, timedelta(seconds=interval), utc("2024-02-27"), utc("2024-03-03")
    )
    for space in (ROOM, FLOOR):
        assert rows(api, dataset, space) == [(begin, n, n) for begin, n in expected]


def test_windows_of_any_width_say_the_same(
    api: APIClient, long_sessions: list[Session], perform_all: Perform
) -> None:
    expected = counted(long_sessions, timedelta(hours=1), utc("2024-02-28"), utc("2024-03-01"))
    for chunk_days in (1, 2, 7, 366):
        dataset = created(
            api,
            root_space_id=FLOOR,
            chunk_days=chunk_days,
            start_time="2024-02-28T00:00:00Z",
            end_time="2024-03-01T00:00:00Z",
        )
        perform_all()
        assert rows(api, dataset, ROOM) == [(begin, n, n) for begin, n in expected]


def test_a_leap_day_is_a_day_like_any_other(
    api: APIClient, long_sessions: list[Session], perform_all: Perform
) -> None:
    leap_day = {"start_time": "2024-02-29T00:00:00Z", "end_time": "2024-03-01T00:00:00Z"}
    dataset = created(api, root_space_id=FLOOR, interval_seconds=86400, **leap_day)
    perform_all()
    assert rows(api, dataset, ROOM) == [("2024-02-29T00:00:00", 5, 5)]


def test_a_plan_written_in_blocks_is_the_same_plan(
    api: APIClient,
    long_sessions: list[Session],
    perform_all: Perform,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = {"start_time": "2024-02-26T00:00:00Z", "end_time": "2024-03-04T00:00:00Z"}
    columns = ("space_id", "chunk_start", "space_type", "session_count", "fingerprint", "row_count")
    plans = []
    for at_once in (500_000, 20, 1):  # of 7 spaces: at most all, two, one of seven windows
        OccupancySpaceChunk.objects.all().delete()
        monkeypatch.setattr(planning, "PLANNED_AT_ONCE", at_once)
        dataset = created(api, **asked, chunk_days=1)
        perform_all()
        assert results(api, dataset)["status"] == "COMPLETED"
        plans.append(sorted(OccupancySpaceChunk.objects.values_list(*columns)))
    assert len(plans[0]) == 5 * 4  # the room and three above it, in the days in which somebody is
    assert plans[1] == plans[2] == plans[0]


# --- times and zones ----------------------------------------------------------------------------


@pytest.fixture
def far_away(campus: SessionsDatabase) -> Iterator[SessionsDatabase]:
    """The sessions' database has another time zone and another way of writing dates."""
    name = psycopg2.extensions.parse_dsn(campus.url)["dbname"]
    campus.execute(f"ALTER DATABASE \"{name}\" SET timezone TO 'America/Los_Angeles'")
    campus.execute(f"ALTER DATABASE \"{name}\" SET datestyle TO 'SQL, DMY'")
    yield campus
    campus.execute(f'ALTER DATABASE "{name}" RESET ALL')


def test_the_time_zone_of_the_sessions_database_changes_nothing(
    api: APIClient, far_away: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api)
    assert dataset["start_time"] == "2024-01-10T08:10:00Z"
    assert dataset["end_time"] == "2024-03-05T12:30:00Z"
    perform_all()
    assert rows(api, dataset, CAMPUS) == [
        ("2024-01-10T08:00:00", 1, 1),
        ("2024-01-10T09:00:00", 2, 2),
        ("2024-01-10T10:00:00", 3, 2),
        ("2024-03-05T12:00:00", 1, 1),
    ]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-01-10T09:00:00Z", "2024-01-10T10:00:00Z"),
        ("2024-01-10T09:00:00", "2024-01-10T10:00:00"),  # without an offset it is UTC
        ("2024-01-10T14:45:00+05:45", "2024-01-10T02:00:00-08:00"),
    ],
)
def test_one_hour_is_one_hour_however_it_is_written(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform, start: str, end: str
) -> None:
    dataset = created(api, start_time=start, end_time=end)
    assert (dataset["start_time"], dataset["end_time"]) == (
        "2024-01-10T09:00:00Z",
        "2024-01-10T10:00:00Z",
    )
    perform_all()
    assert rows(api, dataset, CAMPUS) == [("2024-01-10T09:00:00", 2, 2)]


def test_one_bound_may_be_left_out(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    open_end = created(api, start_time="2024-02-01T00:00:00+01:00")
    assert open_end["end_time"] == "2024-03-05T12:30:00Z"
    open_start = created(api, end_time="2024-01-10T09:30:00")
    assert open_start["start_time"] == "2024-01-10T08:10:00Z"
    perform_all()
    assert [hour for hour, *_ in rows(api, open_end, CAMPUS)] == ["2024-03-05T12:00:00"]
    assert [hour for hour, *_ in rows(api, open_start, CAMPUS)] == [
        "2024-01-10T08:00:00",
        "2024-01-10T09:00:00",
    ]


# --- the tree -----------------------------------------------------------------------------------


@pytest.mark.parametrize("root", [7, 9, 70])
def test_a_root_in_or_below_a_circle_is_refused_by_its_ids(
    api: APIClient, campus: SessionsDatabase, root: int
) -> None:
    campus.add_spaces({7: 9, 8: 7, 9: 8, 70: 7})
    response = api.post("/occupancy/datasets", {"name": "d", "root_space_id": root})
    assert (response.status_code, body(response)["code"]) == (409, "conflict")
    assert all(f"{each}" in body(response)["detail"] for each in (7, 8, 9))
    assert not OccupancyDataset.objects.exists()


def test_a_space_that_lies_in_itself_is_refused(api: APIClient, campus: SessionsDatabase) -> None:
    campus.add_spaces({7: 7})
    response = api.post("/occupancy/datasets", {"name": "d", "root_space_id": 7})
    assert response.status_code == 409
    assert body(response)["detail"] == "These spaces lie in each other: 7."


def test_a_root_that_lies_nowhere_is_refused_by_its_id(
    api: APIClient, campus: SessionsDatabase
) -> None:
    campus.add_spaces({7: 999, 70: 7})
    for root in (7, 70):
        response = api.post("/occupancy/datasets", {"name": "d", "root_space_id": root})
        assert response.status_code == 409
        assert body(response)["detail"] == "Space 7 lies in space 999, which does not exist."


def test_a_tree_that_breaks_later_is_told_and_heals(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    campus.execute("UPDATE space SET parent_space_id = %s WHERE space_id = %s", [ROOM, CAMPUS])
    perform_all()
    path = f"/occupancy/datasets/{dataset['dataset_id']}"
    failed = body(api.get(path))
    assert failed["status"] == "FAILED"
    assert f"{CAMPUS}" in failed["error_message"]
    for tree in (f"{path}/progress", f"{path}/results?space_id={ROOM}"):
        assert api.get(tree).status_code == 409
    campus.execute("UPDATE space SET parent_space_id = NULL WHERE space_id = %s", [CAMPUS])
    assert api.post(f"{path}/retry").status_code == 200
    perform_all()
    assert body(api.get(path))["status"] == "COMPLETED"
    assert len(rows(api, dataset, ROOM)) == 3


# --- a source that takes its time ---------------------------------------------------------------


@pytest.fixture
def lock(campus: SessionsDatabase) -> Iterator[psycopg2.extensions.connection]:
    """Whoever asks the sessions waits for the end of this connection's transaction."""
    with closing(psycopg2.connect(campus.url)) as holder:
        holder.cursor().execute("LOCK TABLE user_ap_trajectory IN ACCESS EXCLUSIVE MODE")
        yield holder


def test_a_request_does_not_wait_for_sessions_that_do_not_answer(
    api: APIClient, lock: psycopg2.extensions.connection, perform_all: Perform
) -> None:
    found = created(api)
    given = created(api, **JANUARY)
    nothing = created(api, root_space_id=OTHER_ROOM, start_time="2024-02-01T00:00:00Z")
    empty = created(api, start_time="2020-01-01T00:00:00Z", end_time="2020-02-01T00:00:00Z")
    for dataset in (found, given, nothing, empty):
        assert dataset["status"] == "RUNNING"
        assert results(api, dataset)["status"] == "RUNNING"
    assert (found["start_time"], found["end_time"]) == (None, None)
    lock.rollback()
    perform_all()
    path = "/occupancy/datasets/{}".format
    dataset = body(api.get(path(found["dataset_id"])))
    assert (dataset["status"], dataset["row_count"]) == ("COMPLETED", 4)
    assert dataset["start_time"] == "2024-01-10T08:10:00Z"
    assert rows(api, given, ATTIC) == [("2024-01-10T10:00:00", 1, 1)]
    # The room's only session lies before this start: the planning says what the request would have.
    refused = body(api.get(path(nothing["dataset_id"])))
    assert refused["status"] == "FAILED"
    assert refused["error_message"].startswith("end_time must be after start_time")
    dataset = body(api.get(path(empty["dataset_id"])))
    assert (dataset["status"], dataset["row_count"]) == ("COMPLETED", 0)


def test_a_tree_without_sessions_that_did_not_answer_is_complete_in_the_end(
    api: APIClient, lock: psycopg2.extensions.connection, perform_all: Perform
) -> None:
    lock.cursor().execute("DELETE FROM user_ap_trajectory")
    dataset = created(api)
    assert dataset["status"] == "RUNNING"
    lock.commit()
    perform_all()
    dataset = body(api.get(f"/occupancy/datasets/{dataset['dataset_id']}"))
    assert (dataset["status"], dataset["row_count"]) == ("COMPLETED", 0)
    assert dataset["completed_at"] is not None
    assert (dataset["start_time"], dataset["end_time"]) == (None, None)
