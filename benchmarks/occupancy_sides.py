"""One side of `occupancy.py`, in a process of its own: prints seconds and peak memory as JSON."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from tippers.cores import cores
from tippers.embedded.workers import workers

DAYS, WINDOW_DAYS, INTERVAL_S = 180, 30, 3600
BEGIN = "2023-12-19T00:00:00"  # a multiple of 30 days since the epoch
END = "2024-06-16T00:00:00"
SESSIONS_PER_DEVICE = 250
CAMPUS, BUILDINGS, FLOORS, ROOMS, WARM = 1, 10, 1_000, 100_000, 5
ROOMS_PER_FLOOR, FLOORS_PER_BUILDING = 10, 5

SPACES = f"""
    INSERT INTO space
    SELECT {CAMPUS}, 'campus', NULL::int, NULL UNION ALL
    SELECT {WARM}, 'warm', NULL, NULL UNION ALL
    SELECT DISTINCT {BUILDINGS} + r / {ROOMS_PER_FLOOR * FLOORS_PER_BUILDING}, 'building',
           {CAMPUS}, NULL FROM generate_series(0, %(rooms)s - 1) AS r UNION ALL
    SELECT DISTINCT {FLOORS} + r / {ROOMS_PER_FLOOR}, 'floor',
           {BUILDINGS} + r / {ROOMS_PER_FLOOR * FLOORS_PER_BUILDING}, NULL
      FROM generate_series(0, %(rooms)s - 1) AS r UNION ALL
    SELECT {ROOMS} + r, 'room ' || r, {FLOORS} + r / {ROOMS_PER_FLOOR}, NULL
      FROM generate_series(0, %(rooms)s - 1) AS r
"""
# Day after day, as sessions arrive; most between 6 and 20 o'clock; some rooms busier than others;
# a fifth lasts over one hour.
SESSIONS = f"""
    INSERT INTO user_ap_trajectory
    SELECT lpad(to_hex(device %% %(devices)s * 7919), 12, '0'), NULL,
           {ROOMS} + floor(%(rooms)s * (room %% 1000000 / 1e6) ^ 2)::int,
           began, began + (CASE WHEN long %% 5 = 0 THEN 3600 + lasted %% 18000
                                ELSE lasted %% 3600 END) * interval '1 second'
      FROM (SELECT abs(hashint8extended(n, 1)) AS device, abs(hashint8extended(n, 2)) AS room,
                   abs(hashint8extended(n, 3)) AS long, abs(hashint8extended(n, 4)) AS lasted,
                   timestamp '{BEGIN}' + n * {DAYS} / %(sessions)s * interval '1 day'
                   + (21600 + abs(hashint8extended(n, 5)) %% 50400) * interval '1 second' AS began
              FROM generate_series(0, %(sessions)s::bigint - 1) AS n) AS numbers
"""


def fill(sessions: int, rooms: int) -> None:
    """Migrate; generate the tree and the sessions; the same as Parquet for the scan."""
    _django()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    url = os.environ["TIPPERS_DB_URL"]
    devices = sessions // SESSIONS_PER_DEVICE
    _generate(url, SPACES, SESSIONS, rooms=rooms, sessions=sessions, devices=devices)
    _execute(
        url, f"INSERT INTO user_ap_trajectory VALUES ('0', NULL, {WARM}, '{BEGIN}', '{BEGIN}')"
    )
    _as_parquet(url)


def _generate(url: str, *statements: str, **numbers: int) -> None:
    from tippers import sessions

    _execute(url, sessions.TABLES)
    for statement in statements:
        _execute(url, statement, numbers)
    for index, place in sessions.INDEXES.items():
        _execute(url, f"CREATE INDEX {index} ON {place}")
    _execute(url, "VACUUM (ANALYZE) space, user_ap_trajectory")


def _execute(url: str, statement: str, numbers: dict[str, int] | None = None) -> None:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, numbers)


def _as_parquet(url: str) -> None:
    import pyarrow.parquet as pq
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(f"{_COLUMNS} WHERE space_id >= {ROOMS}")
        reader = cursor.fetch_record_batch()
        with pq.ParquetWriter(_home() / "sessions.parquet", reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)


_COLUMNS = "SELECT mac_address, space_id, start_time, end_time FROM user_ap_trajectory"


def ours(rooms: int) -> dict[str, Any]:
    """From the POST to COMPLETED. What a slot does once, its imports, was done before."""
    _django()
    from occupancy.models import OccupancySpaceChunk

    _forget_datasets()
    with _workers() as slots:
        _warm(slots)
        begun = time.perf_counter()
        _until_complete(_post(root_space_id=CAMPUS))
        seconds = time.perf_counter() - begun
        # Their peaks need not come at the same time, and pages that they share count for each.
        peak = sum(_peak_mb(int(name.rpartition(":")[2])) for name in slots)
    files = [
        _home() / "storage" / "occupancy" / "spaces" / str(ROOMS + room) / str(INTERVAL_S)
        for room in range(rooms)
    ]
    found = OccupancySpaceChunk.objects.filter(status="COMPLETED", space_id__gte=FLOORS)
    assert found.filter(space_id__lt=ROOMS).exists()
    return {"seconds": seconds, "peak_mb": peak, "said": _said(files)}


def _forget_datasets() -> None:
    from occupancy.models import OccupancyDataset, OccupancySpaceChunk

    OccupancyDataset.objects.all().delete()
    OccupancySpaceChunk.objects.all().delete()
    _put_aside(_home() / "storage")


def _warm(slots: set[str]) -> None:
    """Small datasets, until every slot has had a run, and every slot for long work a drain."""
    from tippers.runs.engine import workers_alive
    from tippers.runs.models import Run

    had: set[str] = set()
    drained: set[str] = set()
    while had < slots or len(drained) < workers_alive("long"):
        _until_complete(_post(root_space_id=WARM, end_time=f"{BEGIN[:-1]}1Z"))
        done = Run.objects.filter(owner__in=slots)
        had |= set(done.values_list("owner", flat=True))
        drained |= set(done.filter(job="occupancy_drain").values_list("owner", flat=True))
        _forget_datasets()


def _post(**fields: Any) -> int:
    from django.contrib.auth.models import User
    from rest_framework.test import APIClient

    user, _ = User.objects.get_or_create(username="benchmark", is_superuser=True)
    client = APIClient()
    client.force_authenticate(user)
    body = {
        "name": "benchmark",
        "interval_seconds": INTERVAL_S,
        "chunk_days": WINDOW_DAYS,
        "start_time": f"{BEGIN}Z",
        "end_time": f"{END}Z",
    } | fields
    body = {name: value for name, value in body.items() if value is not None}
    answer = client.post("/occupancy/datasets", body, format="json", headers={"host": "localhost"})
    assert answer.status_code == 201, answer.content
    return int(answer.json()["dataset_id"])


def _until_complete(dataset_id: int) -> None:
    from occupancy.models import OccupancyDataset

    while True:
        dataset = OccupancyDataset.objects.get(pk=dataset_id)
        assert dataset.status != "FAILED", dataset.error_message
        if dataset.status == "COMPLETED":
            return
        time.sleep(0.1)


@contextmanager
def _workers() -> Iterator[set[str]]:
    """Those that `make serve` starts here; the names of their slots, which end with process ids."""
    from tippers.runs.models import Heartbeat, Run

    Heartbeat.objects.all().delete()
    Run.objects.all().delete()
    served = workers(cores())
    log = (_home() / "logs" / "worker.log").open("ab")
    started = [
        subprocess.Popen(
            [sys.executable, *each.arguments()], stdout=log, stderr=log, start_new_session=True
        )
        for each in served
    ]
    try:
        slots: set[str] = set()
        while len(slots) < sum(each.slots for each in served):
            time.sleep(0.05)
            slots = set(Heartbeat.objects.values_list("name", flat=True))
        yield slots
    finally:
        for worker in started:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        log.close()


def _peak_mb(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


_CHUNK = """
    SELECT bin, count(DISTINCT mac_address) AS number_connections
      FROM user_ap_trajectory,
           generate_series(date_bin('1 hour', greatest(start_time, %(low)s), timestamp '1970-01-01'),
                           least(end_time, %(high)s) - interval '1 microsecond',
                           interval '1 hour') AS bin
     WHERE space_id = %(space)s AND start_time < %(high)s AND end_time > %(low)s
       AND start_time >= %(low)s::timestamp - interval '1 day'
     GROUP BY bin ORDER BY bin
"""


def per_chunk(rooms: int) -> dict[str, Any]:
    """The plain loop. The day before the window bounds the scan: no session here is longer."""
    from datetime import datetime, timedelta

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    folder = _home() / "per_chunk"
    _put_aside(folder)
    folder.mkdir()
    starts = [
        datetime.fromisoformat(BEGIN) + timedelta(days=day) for day in range(0, DAYS, WINDOW_DAYS)
    ]

    def put(space: int, number: int, table: pa.Table) -> Path:
        path = folder / str(space) / f"{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path)
        return path

    def summed(paths: list[Path]) -> pa.Table:
        below = pa.concat_tables([pq.read_table(path) for path in paths])
        total = below.group_by("bin").aggregate([("number_connections", "sum")])
        return total.rename_columns(["bin", "number_connections"]).sort_by("bin")

    with closing(psycopg2.connect(os.environ["TIPPERS_DB_URL"])) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT space_id, parent_space_id FROM space WHERE space_id <> %s", [WARM])
        parents = dict(cursor.fetchall())
        connection.commit()
        begun = time.perf_counter()
        for number, low in enumerate(starts):
            below: dict[int, list[Path]] = {}
            for space in range(ROOMS, ROOMS + rooms):
                high = low + timedelta(days=WINDOW_DAYS)
                cursor.execute(_CHUNK, {"space": space, "low": low, "high": high})
                found = cursor.fetchall()
                connection.commit()
                if found:
                    bins, counts = zip(*found, strict=True)
                    table = pa.table({"bin": bins, "number_connections": counts})
                    below.setdefault(parents[space], []).append(put(space, number, table))
            while below:
                above: dict[int, list[Path]] = {}
                for space, paths in below.items():
                    path = put(space, number, summed(paths))
                    if parents[space] is not None:
                        above.setdefault(parents[space], []).append(path)
                below = above
        seconds = time.perf_counter() - begun
    tables = [folder / str(ROOMS + room) for room in range(rooms)]
    campus = pa.concat_tables([pq.read_table(path) for path in (folder / str(CAMPUS)).iterdir()])
    said = _said(tables)
    assert pc.sum(campus["number_connections"]).as_py() == said[1]
    return {"seconds": seconds, "said": said}


def scan(_rooms: int) -> dict[str, Any]:
    """Polars, on all cores, on packed numbers instead of texts: the quickest way found."""
    import polars as pl

    step, begin = INTERVAL_S * 1_000_000, int(_epoch(BEGIN)) * 1_000_000
    bins = DAYS * 86_400 // INTERVAL_S
    first = (pl.col("start_time").to_physical() - begin) // step
    last = (pl.col("end_time").to_physical() - begin - 1) // step
    begun = time.perf_counter()
    found = (
        pl.scan_parquet(_home() / "sessions.parquet")
        .select(
            pl.col("mac_address").cast(pl.Categorical).to_physical().cast(pl.Int64).alias("device"),
            (pl.col("space_id") - ROOMS).cast(pl.Int64).alias("space"),
            first.clip(0, None).alias("first"),
            last.clip(None, bins - 1).alias("last"),
        )
        .filter(pl.col("last") >= pl.col("first"))
        .with_columns(pl.int_ranges("first", pl.col("last") + 1).alias("bin"))
        .explode("bin")
        .select(((pl.col("space") * bins + pl.col("bin")) * 2**24 + pl.col("device")).alias("cell"))
        .unique()
        .group_by((pl.col("cell") // 2**24).alias("place"))
        .len()
        .collect()
    )
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "said": [len(found), found["len"].sum()]}


def post(spaces: int) -> dict[str, Any]:
    """A tree of that many spaces with ten sessions each over a year, asked for without a range."""
    url = os.environ["TIPPERS_DB_URL"]
    name = "benchmark_post"
    _execute(url, f"DROP DATABASE IF EXISTS {name}")
    _execute(url, f"CREATE DATABASE {name}")
    os.environ["TIPPERS_DB_URL"] = url.rpartition("/")[0] + f"/{name}"
    _django()
    from occupancy.models import OccupancyDataset

    rooms = spaces * 100 // 112  # with their floors and buildings about as many as asked for
    numbers = {"rooms": rooms, "sessions": rooms * 10, "devices": rooms}
    year = SESSIONS.replace(f"* {DAYS} /", "* 350 /")
    _generate(os.environ["TIPPERS_DB_URL"], SPACES, year, **numbers)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        dataset = _post(root_space_id=CAMPUS, start_time=None, end_time=None)
        seconds.append(time.perf_counter() - begun)
        OccupancyDataset.objects.filter(pk=dataset).delete()
    return {"seconds": sorted(seconds)[1]}


def _said(folders: list[Path]) -> list[int]:
    """Non-empty bins of the rooms, and the sum of their counts."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows = total = 0
    for folder in folders:
        for path in folder.glob("*.parquet"):
            counts = pq.ParquetFile(path).read(["number_connections"])["number_connections"]
            rows += len(counts)
            total += pc.sum(counts).as_py() or 0
    return [rows, total]


def _put_aside(folder: Path) -> None:
    """Not deleted before the end: for a while after that, a file system makes new files slowly."""
    if folder.exists():
        folder.rename(f"{folder}-{time.monotonic_ns()}")


def _epoch(text: str) -> float:
    from datetime import UTC, datetime

    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def _home() -> Path:
    return Path(os.environ["TIPPERS_HOME"])


def _django() -> None:
    import django

    django.setup()


def main() -> None:
    side, *numbers = sys.argv[1], *map(int, sys.argv[2:])
    if side == "fill":
        fill(*numbers)
        return
    result = {"ours": ours, "per_chunk": per_chunk, "scan": scan, "post": post}[side](*numbers)
    result.setdefault("peak_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
