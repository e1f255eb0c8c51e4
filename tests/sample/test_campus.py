"""What the simulated campus promises: seeded, plausible, and not too easy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from tippers.sample import campus
from tippers.sample.campus import Campus


@pytest.fixture(scope="module")
def simulated() -> Campus:
    return campus.simulate(devices=800, rooms=60, days=56, seed=3)


@pytest.fixture(scope="module")
def db(simulated: Campus) -> Iterator[Any]:
    """The tables as SQL sees them: s(essions), sp(aces), t(ypes), p(eople)."""
    connection = duckdb.connect()
    connection.register("s", simulated.sessions)
    connection.register("sp", simulated.spaces)
    connection.register("t", simulated.truth.device_types)
    connection.register("p", simulated.truth.people)
    yield connection
    connection.close()


def by_type(db: Any, measure: str, per_device: str) -> dict[str, float]:
    """`measure` over the devices of each type, `per_device` being one number for each."""
    rows = db.execute(
        f"SELECT device_type, {measure} FROM (SELECT mac_address, {per_device} AS x FROM s "
        "GROUP BY mac_address) JOIN t USING (mac_address) GROUP BY device_type"
    ).fetchall()
    return dict(rows)


def one(db: Any, sql: str) -> Any:
    return db.execute(sql).fetchone()[0]


def test_the_same_seed_gives_the_same_campus_and_another_seed_another() -> None:
    first = campus.simulate(devices=60, rooms=12, days=14, seed=5)
    again = campus.simulate(devices=60, rooms=12, days=14, seed=5)
    other = campus.simulate(devices=60, rooms=12, days=14, seed=6)
    assert first == again
    assert first.sessions != other.sessions


def test_a_campus_too_small_for_weekends_and_roaming_is_refused() -> None:
    for size in ({"devices": 10}, {"rooms": 2}, {"days": 5}):
        with pytest.raises(ValueError, match="at least 50 devices, 10 rooms and 14 days"):
            campus.simulate(**size)


def test_the_smallest_campus_has_every_type() -> None:
    small = campus.simulate(devices=50, rooms=10, days=14, seed=1)
    kinds = small.truth.device_types["device_type"].to_pylist()
    assert set(kinds) == {"STATIC", "LAPTOP", "PHONE"}
    assert small.spaces.num_rows == 1 + 1 + 1 + 10


def test_rooms_lie_on_floors_of_buildings_of_one_campus(db: Any) -> None:
    depths = db.execute(
        "WITH RECURSIVE d AS (SELECT space_id, 0 AS depth FROM sp WHERE parent_space_id IS NULL "
        "UNION ALL SELECT sp.space_id, depth + 1 FROM sp JOIN d ON sp.parent_space_id = d.space_id) "
        "SELECT depth, COUNT(*) FROM d GROUP BY depth ORDER BY depth"
    ).fetchall()
    assert depths == [(0, 1), (1, 2), (2, 6), (3, 60)]


def test_every_session_is_whole_and_in_a_known_space(db: Any, simulated: Campus) -> None:
    assert one(db, "SELECT COUNT(*) FROM s WHERE end_time <= start_time") == 0
    assert one(db, "SELECT COUNT(*) FROM s ANTI JOIN sp USING (space_id)") == 0
    assert one(db, "SELECT COUNT(*) FROM s ANTI JOIN t USING (mac_address)") == 0
    assert sum(column.null_count for column in simulated.sessions.columns) == 0
    began, ended = db.execute("SELECT MIN(start_time), MAX(end_time) FROM s").fetchone()
    assert began >= campus.FIRST_DAY
    assert (ended - campus.FIRST_DAY).total_seconds() <= 56 * 86_400


def test_a_few_access_points_stand_on_floors_and_not_in_rooms(db: Any) -> None:
    share = one(
        db,
        "SELECT (SELECT COUNT(*) FROM s WHERE space_id IN (SELECT parent_space_id FROM sp)) "
        "/ (SELECT COUNT(*) FROM s)",
    )
    assert 0.005 < share < 0.2


def test_static_devices_keep_to_a_room_by_day_and_night(db: Any) -> None:
    nights = by_type(db, "MEDIAN(x)", "AVG((EXTRACT(hour FROM start_time) < 6)::INT)")
    assert nights["STATIC"] > 0.2
    assert max(nights["LAPTOP"], nights["PHONE"]) < 0.05
    weekends = by_type(db, "MEDIAN(x)", "AVG((EXTRACT(isodow FROM start_time) > 5)::INT)")
    assert weekends["STATIC"] > 0.2
    rooms = by_type(db, "MEDIAN(x)", "COUNT(DISTINCT space_id)")
    assert rooms["STATIC"] <= 5


def test_laptops_sit_long_in_few_rooms_and_phones_move_all_day(db: Any) -> None:
    minutes = by_type(db, "MEDIAN(x)", "MEDIAN(EXTRACT(epoch FROM end_time - start_time) / 60)")
    assert minutes["LAPTOP"] > 4 * minutes["PHONE"]
    rooms = by_type(db, "MEDIAN(x)", "COUNT(DISTINCT space_id)")
    assert rooms["PHONE"] > 3 * rooms["LAPTOP"]
    per_day = by_type(db, "MEDIAN(x)", "COUNT(*) / COUNT(DISTINCT start_time::DATE)")
    assert per_day["PHONE"] > per_day["LAPTOP"]


def test_phones_are_in_several_rooms_within_one_hour(db: Any) -> None:
    share = one(
        db,
        "SELECT AVG((rooms >= 2)::INT) FROM (SELECT COUNT(DISTINCT space_id) AS rooms FROM s "
        "JOIN t USING (mac_address) WHERE device_type = 'PHONE' "
        "GROUP BY mac_address, DATE_TRUNC('hour', start_time))",
    )
    assert share > 0.1


def test_some_sessions_of_every_type_last_over_midnight(db: Any) -> None:
    rows = db.execute(
        "SELECT device_type, COUNT(*) FROM s JOIN t USING (mac_address) "
        "WHERE start_time::DATE < end_time::DATE GROUP BY device_type"
    ).fetchall()
    assert {kind for kind, count in rows if count > 20} == {"STATIC", "LAPTOP", "PHONE"}


def test_some_devices_are_absent_for_half_of_the_range(db: Any) -> None:
    half = "TIMESTAMP '2025-09-29'"
    for gone in (f"MAX(start_time) < {half}", f"MIN(start_time) >= {half}"):
        share = one(
            db,
            f"SELECT AVG(gone::INT) FROM (SELECT {gone} AS gone FROM s GROUP BY mac_address "
            "HAVING COUNT(*) > 100)",
        )
        assert share > 0.03


def test_the_people_counted_are_those_who_carry_the_devices(db: Any) -> None:
    """Where phones are heard there are people, at least in the hours that most are awake."""
    heard, people = db.execute(
        "WITH h AS (SELECT DATE_TRUNC('hour', start_time) AS hour, COUNT(DISTINCT mac_address) AS n "
        "FROM s JOIN t USING (mac_address) WHERE device_type <> 'STATIC' GROUP BY 1), "
        "q AS (SELECT interval_begin_time AS hour, SUM(people) AS n FROM p GROUP BY 1) "
        "SELECT LIST(h.n), LIST(q.n) FROM h JOIN q USING (hour)"
    ).fetchone()
    assert np.corrcoef(np.array(heard, float), np.array(people, float))[0, 1] > 0.9


MEASURES = {
    "sessions": "COUNT(*)",
    "mean_minutes": "AVG(EXTRACT(epoch FROM end_time - start_time) / 60)",
    "median_minutes": "MEDIAN(EXTRACT(epoch FROM end_time - start_time) / 60)",
    "short_share": "AVG((end_time - start_time <= INTERVAL 15 MINUTE)::INT)",
    "rooms": "COUNT(DISTINCT space_id)",
    "night_share": "AVG((EXTRACT(hour FROM start_time) < 6)::INT)",
    "weekend_share": "AVG((EXTRACT(isodow FROM start_time) > 5)::INT)",
    "days_seen": "COUNT(DISTINCT start_time::DATE)",
    "sessions_per_day": "COUNT(*) / COUNT(DISTINCT start_time::DATE)",
    "rooms_per_day": "COUNT(DISTINCT space_id) / COUNT(DISTINCT start_time::DATE)",
}


@pytest.mark.parametrize("measure", MEASURES)
def test_no_thresholds_on_one_measure_tell_the_types_apart(db: Any, measure: str) -> None:
    """Even the best two thresholds, chosen with the truth in hand, leave one device in twenty."""
    x, y = db.execute(
        f"SELECT LIST(x), LIST(device_type) FROM (SELECT mac_address, {MEASURES[measure]} AS x "
        "FROM s GROUP BY mac_address) JOIN t USING (mac_address)"
    ).fetchone()
    values = np.array(x, float)[:, None]
    best = DecisionTreeClassifier(max_leaf_nodes=3, random_state=0).fit(values, y)
    assert best.score(values, y) < 0.95


def test_what_is_written_is_read_back_and_the_truth_lies_apart(
    simulated: Campus, tmp_path: Path
) -> None:
    campus.write(simulated, tmp_path)
    assert campus.read_truth(tmp_path) == simulated.truth
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "space.csv",
        "user_ap_trajectory.parquet",
    ]
    (tmp_path / "truth" / "device_types.parquet").unlink()
    assert campus.read_truth(tmp_path) is None
