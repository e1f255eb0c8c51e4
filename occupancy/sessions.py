"""What occupancy reads of the Wi-Fi sessions (`user_ap_trajectory` of the tippers database).

Times in the table are UTC without a zone, and every connection speaks UTC. A session overlaps
[lo, hi) when `start_time < hi and end_time > lo`; one without an end is still open. Statements are
built from integers and times of ours alone.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from connections import query
from occupancy.spaces import below, database
from tippers.errors import CannotBeDone
from tippers.partitions import Window

if TYPE_CHECKING:
    import pyarrow as pa

STATEMENT_TIMEOUT_S = 3600.0  # of a block of windows that is counted, or a batch that is pulled
_YEAR_2000 = 946_684_800_000_000  # microseconds since 1970
# The first moment that PostgreSQL's timestamp can hold, for SQL and as it is sent.
_FIRST_MOMENT, _FIRST_NUMBER = "timestamp '4714-11-24 BC'", -211_813_488_000_000_000
PROBE_TIMEOUT_S = 0.6  # of a question that a request waits for
type_of_stop = Callable[[Callable[[], None]], AbstractContextManager[None]]


def overlap_anywhere(root_space_id: int, window: Window) -> bool:
    """Whether a session overlaps the window in the space or below it; stops at the first.

    One probe of an index for each space; without an index, or with very many spaces, it may take
    longer than PROBE_TIMEOUT_S: QueryTooSlow.
    """
    low, high = _time(window.start), _time(window.end)
    sql = f"""
        WITH RECURSIVE {below(root_space_id)} SELECT EXISTS (
            SELECT 1 FROM below CROSS JOIN LATERAL (
                SELECT 1 FROM user_ap_trajectory t
                 WHERE t.space_id = below.space_id AND {_overlaps(low, high)} LIMIT 1) AS first)
    """  # noqa: S608 - integers and times of ours
    ((found,),) = query.fetch(database(), sql, timeout_s=PROBE_TIMEOUT_S)
    return bool(found)


def extent(root_space_id: int, *, now: datetime) -> tuple[datetime, datetime] | None:
    """The first start and the last end of the sessions in the space and below it.

    The last end is `now` if one is still open. None when there are no sessions. Two probes of an
    index for each space, however many sessions there are; else QueryTooSlow as above.
    """
    sql = f"""
        WITH RECURSIVE {below(root_space_id)} SELECT min(first), max(last) FROM below
         CROSS JOIN LATERAL (
            SELECT min(start_time) AS first FROM user_ap_trajectory t
             WHERE t.space_id = below.space_id) AS starts
         CROSS JOIN LATERAL (
            SELECT coalesce(end_time, {_time(now)}) AS last FROM user_ap_trajectory t
             WHERE t.space_id = below.space_id
             ORDER BY end_time DESC NULLS FIRST LIMIT 1) AS ends
    """  # noqa: S608 - integers and times of ours
    return _extent(query.fetch(database(), sql, timeout_s=PROBE_TIMEOUT_S))


def scanned_extent(root_space_id: int, *, now: datetime) -> tuple[datetime, datetime] | None:
    """As `extent`, by one scan of all sessions: for a background run, whatever indexes there are."""
    sql = f"""
        WITH RECURSIVE {below(root_space_id)}
        SELECT min(start_time), max(coalesce(end_time, {_time(now)})) FROM user_ap_trajectory
         WHERE space_id IN (SELECT space_id FROM below)
    """  # noqa: S608 - integers and times of ours
    return _extent(query.fetch(database(), sql, timeout_s=STATEMENT_TIMEOUT_S))


def _extent(
    rows: list[tuple[datetime | None, datetime | None]],
) -> tuple[datetime, datetime] | None:
    ((first, last),) = rows
    if first is None or last is None:
        return None
    return _utc(first), max(_utc(first) + timedelta(microseconds=1), _utc(last))


def counted(
    space_ids: Collection[int],
    windows: Sequence[Window],
    *,
    now: datetime,
    on_stop: type_of_stop,
) -> "pa.Table":
    """Sessions per space and window: space_id, window (its number from 0), sessions, fingerprint.

    Of each window the server reads what `pulled` does, by the same indexes; places without any are
    left out. A session without an end reaches until `now`. The fingerprint is a hash of their
    number, their greatest end and the sum of their own hashes, in which those count too that end
    before they start.
    """
    overlaps = _overlaps("low", "high", still_open=f"end_time IS NULL AND low < {_time(now)}")
    bounds = ", ".join(
        f"({number}, {_time(window.start)}, {_time(window.end)})"
        for number, window in enumerate(windows)
    )
    sums = f"""
        count(*) FILTER (WHERE end_time >= start_time OR end_time IS NULL) AS n,
        max({_END}) AS last, sum({_HASH}) AS hashes"""
    # Each part by itself, as in `pulled`; as a join, each window is a scan of its own.
    parts = " UNION ALL ".join(
        f"""
        SELECT space_id, {sums} FROM user_ap_trajectory
         WHERE {_of(space_ids)} AND {part} AND {overlaps}
         GROUP BY space_id"""  # noqa: S608 - integers and times of ours
        for part in _near("low")
    )
    sql = f"""
        SELECT space_id, number AS "window", sum(n)::bigint AS sessions,
               md5(concat_ws(':', sum(n), max(last), sum(hashes))) AS fingerprint
          FROM (VALUES {bounds}) AS windows(number, low, high) CROSS JOIN LATERAL ({parts}) AS parts
         GROUP BY space_id, number HAVING sum(n) > 0
    """  # noqa: S608 - integers and times of ours
    with query.stream(database(), sql, timeout_s=STATEMENT_TIMEOUT_S, on_stop=on_stop) as reader:
        return reader.read_all()


_END = "coalesce(end_time, 'infinity')"
# The server's own hashes, one the seed of the next: a scan takes hardly longer with them.
_HASH = f"""hashtextextended(mac_address::text,
            timestamp_hash_extended({_END}, timestamp_hash_extended(start_time, 0)))"""


def pulled(space_ids: Collection[int], window: Window, *, on_stop: type_of_stop) -> "pa.Table":
    """The sessions of the spaces that overlap the window, or start in it and are at fault.

    Columns mac_address (dictionary-encoded), space_id, start_time, end_time; sessions without a
    device, a space or a start say nothing and are left out. CannotBeDone for one that starts or
    ends at infinity.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    # A row or two a space, its sessions packed: see `query.packed`. Each part by itself, in the
    # order of its index: taken together they would be hashed, and spill, since the server thinks
    # that what it gathers takes 8 kB from the start.
    address = "mac_address::text"
    low, high = _time(window.start), _time(window.end)
    sql = " UNION ALL ".join(
        f"""
        SELECT space_id, string_agg(timestamp_send(start_time), '') AS starts,
               string_agg(timestamp_send(coalesce(end_time, {_FIRST_MOMENT})), '') AS ends,
               string_agg({address}, '') AS addresses,
               string_agg(int4send(octet_length(textsend({address}))), '') AS lengths
          FROM user_ap_trajectory
         WHERE {part} AND {_of(space_ids)} AND {_overlaps(low, high)}
           AND mac_address IS NOT NULL AND start_time IS NOT NULL
         GROUP BY space_id"""  # noqa: S608 - integers and times of ours
        for part in _near(low)
    )
    found = query.packed(database(), sql, timeout_s=STATEMENT_TIMEOUT_S, on_stop=on_stop)
    sessions_of = pc.divide(pc.binary_length(found["starts"]), 8).to_numpy()
    addresses = _texts(_bytes(found["addresses"].cast(pa.binary())), _bytes(found["lengths"]))
    return pa.table(
        {
            "mac_address": addresses.dictionary_encode(),
            "space_id": np.repeat(found["space_id"].to_numpy(), sessions_of),
            "start_time": _times(_bytes(found["starts"])),
            "end_time": _times(_bytes(found["ends"])),
        }
    )


def _bytes(column: "pa.ChunkedArray") -> bytes:
    return b"".join(column.to_pylist())


def _times(sent: bytes) -> "pa.Array":
    """Times as PostgreSQL sends them, in microseconds since 2000; the first there is means null."""
    import pyarrow as pa

    numbers = np.frombuffer(sent, ">i8").astype(np.int64)
    infinite = np.iinfo(np.int64)
    if np.isin(numbers, [infinite.min, infinite.max]).any():
        raise CannotBeDone("A session starts or ends at 'infinity'; one without an end has none.")
    unknown = numbers == _FIRST_NUMBER
    return pa.array((numbers + _YEAR_2000).view("datetime64[us]"), mask=unknown)


def _texts(joined: bytes, lengths: bytes) -> "pa.Array":
    """Texts from one text of them all and the length of each in bytes."""
    import pyarrow as pa

    ends = np.cumsum(np.frombuffer(lengths, ">i4"), dtype=np.int64)
    offsets = np.append(np.int64(0), ends)
    return pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(joined))


def _near(low: str) -> tuple[str, str]:
    """Two conditions, of which each session that overlaps what begins at `low` meets one.

    An index by start finds no session by its end, and so reads all that began before the window:
    years of them. Nearly all are short, and one that began more than a day before is not; those
    have an index of their own, `tippers.sessions.INDEXES`.
    """
    day_before = f"({low} - interval '1 day')"
    return (
        f"start_time >= {day_before}",
        f"start_time < {day_before} AND (end_time IS NULL OR end_time - start_time > interval '1 day')",
    )


def _overlaps(low: str, high: str, *, still_open: str = "end_time IS NULL") -> str:
    # What starts in the window counts even if it ends before: a fault, to be counted.
    return f"start_time < {high} AND (start_time >= {low} OR end_time > {low} OR {still_open})"


def _of(space_ids: Collection[int]) -> str:
    return f"space_id = ANY({_ids(space_ids)})"


def _ids(space_ids: Collection[int]) -> str:
    return "'{" + ",".join(str(int(each)) for each in sorted(space_ids)) + "}'::int[]"


def _time(moment: datetime) -> str:
    return f"timestamp '{moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ')}'"


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
