"""The life of a chunk: planned, claimed, published, failed. Each change is a conditional UPDATE.

Who holds a chunk's token may change the chunk. Whoever changes chunks that it does not hold takes
`exclusively` first, so that plans, claims and failures never wait for each other in a circle;
publishing, which takes long, needs no such lock.
"""

import hashlib
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from occupancy.models import OccupancySpaceChunk, Status
from tippers import storage
from tippers.partitions import Window

if TYPE_CHECKING:
    import pyarrow as pa

    from occupancy.tree import Ints

# Of one claim. What lies above several batches pulls its sessions again, so a window should fit in
# one: at 3.3 million sessions in 3,000 rooms a worker takes 0.6 GB at the peak.
BATCH_SESSIONS = 4_000_000
FEWEST_SESSIONS = 10_000
MAX_FAILURES = 3
MAX_LOST_WORKERS = 10
MAX_OUTAGES = 12
FIRST_BACK_OFF = timedelta(seconds=5)
LONGEST_BACK_OFF = timedelta(minutes=5)
PUBLISHED_AT_ONCE = 1_000  # rows locked while their files are put in place
ROOT_FOLDER = "occupancy/spaces"
_LOCK = 0x0CC0_9A11  # any number that nothing else uses

SOURCE = OccupancySpaceChunk.SpaceType.SOURCE
DERIVED = OccupancySpaceChunk.SpaceType.DERIVED


def storage_key(chunk: OccupancySpaceChunk) -> str:
    """Where the chunk's file lies; the same for every attempt."""
    begin, end = _stamp(chunk.chunk_start), _stamp(chunk.chunk_end)
    return f"{storage_folder(chunk.space_id, chunk.interval_seconds)}/chunk_{begin}_{end}.parquet"


@lru_cache(1024)  # thousands of chunks have one window
def _stamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%S}"


def storage_folder(space_id: int, interval_seconds: int) -> str:
    """Where the files of one space and width lie."""
    return f"{ROOT_FOLDER}/{space_id}/{interval_seconds}"


def clock() -> datetime:
    """The database's time, which decides what is settled."""
    ((now,),) = _rows("SELECT clock_timestamp()")
    return now  # type: ignore[no-any-return]  # a cursor's rows have no types


# --- planning ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planned:
    """The chunks that a dataset needs, as parallel columns; windows are numbered from 0."""

    space_ids: "Ints"
    windows: "Ints"
    derived: Sequence[bool]
    sessions: "Ints"
    fingerprints: Sequence[str | None]


def plan(
    planned: Planned,
    *,
    parents: Mapping[int, int | None],
    windows: Sequence[Window],
    interval_seconds: int,
    dataset_id: int,
    trust_final: bool = True,
) -> int:
    """Write the rows that are missing and put back to PENDING what must be computed again; how many.

    `parents` names the space above each, above the dataset's root too, so that what other datasets
    have there notices. Put back is what failed, what is provisional (wanted or not), and whatever
    lies above something that is not complete or not what it was. What somebody is computing is left
    alone, save a space that has got something new below it: that is taken away, and the fence
    discards what comes of it. Unless what is final is trusted, all whose sessions are not those
    that it was computed from is put back too, and taken away from whoever computes it.
    """
    ids = planned.space_ids.tolist()
    numbers = planned.windows.tolist()
    # Once each: a window's text is the same for a hundred thousand spaces.
    starts = [window.start.isoformat() for window in windows]
    ends = [window.end.isoformat() for window in windows]
    source, derived = SOURCE.value, DERIVED.value
    columns = [
        ids,
        [parents.get(space_id) for space_id in ids],
        [derived if is_derived else source for is_derived in planned.derived],
        planned.sessions.tolist(),
        [starts[number] for number in numbers],
        [ends[number] for number in numbers],
        planned.fingerprints,
    ]
    place = [interval_seconds, windows[0].start, windows[-1].end, windows[0].width]
    tree = [_array(list(parents)), _array(list(parents.values()))]
    with exclusively():
        ((changed, above),) = _rows(
            _PLAN,
            [
                interval_seconds,
                dataset_id,
                not trust_final,
                *map(_array, columns),
                *tree,
                dataset_id,
                not trust_final,
                *place,
            ],
        )
        return int(changed) + _reset_above(above, place)


def _reset_above(space_ids: list[int], place: Sequence[Any]) -> int:
    """RUNNING, COMPLETED or FAILED -> PENDING in these spaces, and what lies above what was put back.

    One level of the tree at a time, in all windows of the place; how many chunks.
    """
    reset = 0
    while space_ids:
        above = _rows(_RESET_ABOVE, [space_ids, *place])
        reset += len(above)
        space_ids = sorted({parent for (parent,) in above if parent is not None})
    return reset


# One array literal a column: a tenth of the time that as many VALUES take to parse. What is not
# wanted any more, because its sessions were deleted or corrected, is computed to nothing.
_PLAN = """
    WITH wanted AS (
        SELECT %s::int AS interval_seconds, %s::bigint AS dataset_id, %s::bool AS doubted, w.*
          FROM unnest(%s::int[], %s::int[], %s::text[], %s::bigint[], %s::timestamptz[],
                      %s::timestamptz[], %s::text[])
            AS w(space_id, parent_space_id, space_type, session_count, chunk_start, chunk_end,
                 fingerprint)
    ), compared AS (
        SELECT w.*, c.chunk_id, c.parent_space_id AS former_parent, c.space_type <> w.space_type
               OR w.doubted AND c.fingerprint IS DISTINCT FROM w.fingerprint AS is_another
          FROM wanted w JOIN occupancy_space_chunks c
            ON c.space_id = w.space_id AND c.interval_seconds = w.interval_seconds
           AND c.chunk_start = w.chunk_start AND c.chunk_end = w.chunk_end
    ), again AS (
        UPDATE occupancy_space_chunks c
           SET space_type = w.space_type, session_count = w.session_count,
               fingerprint = w.fingerprint, parent_space_id = w.parent_space_id,
               dataset_id = w.dataset_id, status = 'PENDING', token = NULL, attempt = 0,
               failures = 0, at_once = NULL, not_before = clock_timestamp(), error_message = NULL
          FROM compared w
         WHERE c.chunk_id = w.chunk_id
           AND (w.is_another OR c.status IN ('PENDING', 'FAILED')
                OR c.status = 'COMPLETED' AND c.provisional)
        RETURNING w.parent_space_id, w.former_parent
    ), moved AS (
        UPDATE occupancy_space_chunks c
           SET parent_space_id = w.parent_space_id, dataset_id = w.dataset_id
          FROM compared w
         WHERE c.chunk_id = w.chunk_id AND NOT w.is_another
           AND c.status = 'COMPLETED' AND NOT c.provisional
           AND c.parent_space_id IS DISTINCT FROM w.parent_space_id
        RETURNING w.parent_space_id, w.former_parent
    ), unwanted AS (
        SELECT c.chunk_id, c.parent_space_id AS former_parent, t.parent_space_id, d.dataset_id
          FROM unnest(%s::int[], %s::int[]) AS t(space_id, parent_space_id),
               (SELECT %s::bigint AS dataset_id, %s::bool AS doubted) AS d, occupancy_space_chunks c
         WHERE c.space_id = t.space_id
           AND c.interval_seconds = %s AND c.chunk_start >= %s AND c.chunk_end <= %s
           AND c.chunk_end - c.chunk_start = %s
           AND (c.status = 'FAILED' OR c.status = 'COMPLETED' AND c.provisional
                OR d.doubted AND c.fingerprint IS NOT NULL)
           AND NOT EXISTS (SELECT 1 FROM wanted w WHERE w.space_id = c.space_id
                              AND w.chunk_start = c.chunk_start)
    ), gone AS (
        UPDATE occupancy_space_chunks c
           SET session_count = 0, fingerprint = NULL, parent_space_id = u.parent_space_id,
               dataset_id = u.dataset_id, status = 'PENDING', token = NULL, attempt = 0,
               failures = 0, at_once = NULL, not_before = clock_timestamp(), error_message = NULL
          FROM unwanted u WHERE c.chunk_id = u.chunk_id
        RETURNING u.parent_space_id, u.former_parent
    ), new AS (
        INSERT INTO occupancy_space_chunks (interval_seconds, dataset_id, space_id, parent_space_id,
               space_type, session_count, chunk_start, chunk_end, fingerprint, status, attempt,
               failures, provisional, data_faults)
        SELECT interval_seconds, dataset_id, space_id, parent_space_id, space_type, session_count,
               chunk_start, chunk_end, fingerprint, 'PENDING', 0, 0, true, 0
          FROM wanted ORDER BY chunk_start, space_id
        ON CONFLICT DO NOTHING RETURNING parent_space_id
    ), put_back AS (
        SELECT * FROM again UNION ALL SELECT * FROM gone
        UNION ALL SELECT parent_space_id, NULL FROM new
    ), above AS (
        SELECT parent_space_id, former_parent FROM put_back UNION SELECT * FROM moved
    ), above_each AS (
        SELECT parent_space_id AS space_id FROM above UNION SELECT former_parent FROM above
    )
    SELECT (SELECT count(*) FROM put_back),
           (SELECT coalesce(array_agg(space_id), '{}') FROM above_each WHERE space_id IS NOT NULL)
"""

_SAME_WINDOW = """below.interval_seconds = c.interval_seconds
           AND below.chunk_start = c.chunk_start AND below.chunk_end = c.chunk_end"""
_BELOW = f"""occupancy_space_chunks below
         WHERE below.parent_space_id = c.space_id AND {_SAME_WINDOW}"""

# As `inputs_hash` below computes it.
_RESET_ABOVE = f"""
    UPDATE occupancy_space_chunks c
       SET status = 'PENDING', token = NULL, attempt = 0, failures = 0,
           not_before = clock_timestamp(), error_message = NULL
     WHERE c.space_type = 'derived' AND c.space_id = ANY(%s)
       AND c.interval_seconds = %s AND c.chunk_start >= %s AND c.chunk_end <= %s
       AND c.chunk_end - c.chunk_start = %s
       AND NOT EXISTS (SELECT 1 FROM {_BELOW} AND below.status = 'FAILED')
       AND (c.status = 'RUNNING' AND EXISTS (SELECT 1 FROM {_BELOW} AND below.status = 'PENDING')
            OR c.status IN ('COMPLETED', 'FAILED') AND (
               EXISTS (SELECT 1 FROM {_BELOW} AND below.status <> 'COMPLETED')
               OR c.inputs_hash IS DISTINCT FROM
                  (SELECT md5(coalesce(string_agg(below.space_id || ':' || below.content_hash, ','
                                                  ORDER BY below.space_id), '')) FROM {_BELOW})))
    RETURNING c.parent_space_id
"""  # noqa: S608 - constants


def retry_failed(
    root_space_id: int, among: QuerySet[OccupancySpaceChunk], *, dataset_id: int
) -> int:
    """FAILED -> PENDING for the chunks of the root's tree that are `among` these; how many.

    What failed for something below it failed up to the root, so all of it is reached from there.
    """
    reset = 0
    level = [root_space_id]
    with exclusively():
        while level:
            failed = among.filter(status=Status.FAILED, space_id__in=level)
            ids = set(failed.values_list("space_id", flat=True))
            reset += failed.update(
                status=Status.PENDING,
                attempt=0,
                failures=0,
                at_once=None,
                not_before=Now(),
                error_message=None,
                dataset_id=dataset_id,
            )
            below = among.filter(status=Status.FAILED, parent_space_id__in=ids)
            level = list(below.values_list("space_id", flat=True).distinct())
    return reset


# --- claiming ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A window in bins of one width: the chunks of one place are computed together."""

    interval_seconds: int
    window: Window


@dataclass(frozen=True)
class Known:
    """A chunk of a place, held or not, as far as the tree is concerned."""

    chunk_id: int
    space_id: int
    parent_space_id: int | None
    space_type: str
    pending: bool  # and not waiting for the end of a back-off
    completed: bool
    sessions: int = 0  # its own, when it was planned
    at_once: int | None = None


@dataclass(frozen=True)
class Batch:
    """Chunks of one place that a run holds, from the leaves up, beside all others of the place."""

    place: Place
    held: list[OccupancySpaceChunk]
    known: list[Known]
    claimed_at: datetime
    sessions_at_once: int


def claim_sources(token: uuid.UUID) -> Batch | None:
    """PENDING -> RUNNING for sources of one window of the dataset whose turn it is.

    With them come all spaces above whose every source is among them, unless a larger batch with
    these sources failed. None when nothing waits.
    """
    with exclusively():
        waiting = _rows(_NEXT_TURN) or _rows(_LEFT_OVER)
        if not waiting:
            return None
        ((dataset_id, interval_seconds, start, end, at_once),) = waiting
        _change(_TAKE_TURN, [dataset_id])
        place = Place(interval_seconds, Window(start, end))
        now = clock()
        sessions_at_once = _sessions_at_once({dataset_id})
        where = [dataset_id, *_of(place), at_once, sessions_at_once, at_once]
        taken = {space_id for (space_id,) in _rows(_CLAIM_SOURCES, [token, now, *where])}
        known = _known(place)
        if at_once is None:
            ready = ready_above(known, done=taken)
            _hold(token, now, [each.chunk_id for each in ready])
        return Batch(place, _held(token, place, known), known, now, sessions_at_once)


def claim_to_roll_up(token: uuid.UUID) -> Batch | None:
    """PENDING -> RUNNING for all derived chunks of one window above nothing but complete ones.

    For fewer when more of them failed together: the deepest first, which need none of the others.
    """
    with exclusively():
        for interval_seconds, start, end in _rows(f"{_TO_ROLL_UP} LIMIT 1"):
            place = Place(interval_seconds, Window(start, end))
            now = clock()
            known = _known(place)
            ready = ready_above(known, done={each.space_id for each in known if each.completed})
            at_once = min((each.at_once for each in ready if each.at_once), default=len(ready))
            _hold(token, now, [each.chunk_id for each in ready[:at_once]])
            held = _held(token, place, known)
            sessions_at_once = _sessions_at_once({chunk.dataset_id for chunk in held})
            return Batch(place, held, known, now, sessions_at_once)
    return None


def _sessions_at_once(dataset_ids: set[int | None]) -> int:
    ((smallest,),) = _rows(
        "SELECT min(sessions_at_once) FROM occupancy_datasets WHERE dataset_id = ANY(%s)",
        [list(dataset_ids)],
    )
    return min(smallest or BATCH_SESSIONS, BATCH_SESSIONS)


def ready_above(known: Iterable[Known], *, done: set[int]) -> list[Known]:
    """The PENDING derived chunks that need only spaces which are `done` or before them in the list.

    `known` are all chunks of one place. Pure.
    """
    by_space = {each.space_id: each for each in known}
    missing: dict[int, int] = defaultdict(int)
    for each in by_space.values():
        if each.parent_space_id is not None:
            missing[each.parent_space_id] += 1
    ready: list[Known] = []
    # A derived chunk with nothing below it any more waits for nothing.
    waiting = [*done, *(space for space in by_space if not missing[space] and space not in done)]
    while waiting:
        each = by_space[waiting.pop()]
        if each.space_id not in done:
            if each.space_type != DERIVED or not each.pending:
                continue
            ready.append(each)
        above = each.parent_space_id
        if above is not None:
            missing[above] -= 1
            if not missing[above] and above in by_space and above not in done:
                waiting.append(above)
    return ready


# The partial index has each dataset's next chunk at hand, so this costs a probe a dataset.
_NEXT_TURN = """
    SELECT next.* FROM occupancy_datasets d CROSS JOIN LATERAL (
        SELECT c.dataset_id, c.interval_seconds, c.chunk_start, c.chunk_end, c.at_once
          FROM occupancy_space_chunks c
         WHERE c.dataset_id = d.dataset_id AND c.status = 'PENDING' AND c.space_type = 'source'
           AND c.not_before <= clock_timestamp()
         ORDER BY c.chunk_start, c.at_once DESC NULLS FIRST LIMIT 1) AS next
     ORDER BY d.last_claimed_at NULLS FIRST, d.dataset_id LIMIT 1
"""
# Whose dataset was deleted: another may need them, so they are done when nothing else waits.
_LEFT_OVER = """
    SELECT dataset_id, interval_seconds, chunk_start, chunk_end, at_once
      FROM occupancy_space_chunks
     WHERE status = 'PENDING' AND space_type = 'source' AND not_before <= clock_timestamp()
     ORDER BY dataset_id, chunk_start, at_once DESC NULLS FIRST LIMIT 1
"""
_TAKE_TURN = """
    UPDATE occupancy_datasets SET last_claimed_at = clock_timestamp() WHERE dataset_id = %s
"""
# Neighbours first, so that what is above them is in the same batch wherever that is possible.
_CLAIM_SOURCES = """
    UPDATE occupancy_space_chunks
       SET status = 'RUNNING', token = %s, attempt = attempt + 1, started_at = %s
     WHERE chunk_id IN (
        SELECT chunk_id FROM (
            SELECT chunk_id, sum(session_count) OVER neighbours - session_count AS before,
                   row_number() OVER neighbours AS number
              FROM occupancy_space_chunks
             WHERE dataset_id IS NOT DISTINCT FROM %s AND interval_seconds = %s
               AND chunk_start = %s AND chunk_end = %s AND status = 'PENDING'
               AND space_type = 'source' AND not_before <= clock_timestamp()
               AND at_once IS NOT DISTINCT FROM %s
            WINDOW neighbours AS (ORDER BY parent_space_id, space_id)) AS waiting
         WHERE before < %s AND (number <= %s) IS NOT FALSE)
    RETURNING space_id
"""
_TO_ROLL_UP = f"""
    SELECT DISTINCT interval_seconds, chunk_start, chunk_end FROM occupancy_space_chunks c
     WHERE status = 'PENDING' AND space_type = 'derived' AND not_before <= clock_timestamp()
       AND NOT EXISTS (SELECT 1 FROM {_BELOW} AND below.status <> 'COMPLETED')
"""  # noqa: S608 - constants


def waiting_windows(limit: int) -> int:
    """In how many windows sources wait to be claimed, counted up to `limit`."""
    return len(_rows(_WAITING_WINDOWS, [limit]))


def to_roll_up() -> bool:
    """Whether a derived chunk waits for nothing but to be rolled up."""
    return bool(_rows(f"{_TO_ROLL_UP} LIMIT 1"))


# From one window to the next by the index, past all chunks that wait in it.
_WAITING_WINDOWS = """
    WITH RECURSIVE waiting AS (
        (SELECT dataset_id, chunk_start FROM occupancy_space_chunks
          WHERE status = 'PENDING' AND space_type = 'source' AND not_before <= clock_timestamp()
          ORDER BY dataset_id, chunk_start LIMIT 1)
        UNION ALL
        SELECT next.* FROM waiting w, LATERAL (
            SELECT dataset_id, chunk_start FROM occupancy_space_chunks
             WHERE status = 'PENDING' AND space_type = 'source' AND not_before <= clock_timestamp()
               AND (dataset_id, chunk_start) > (w.dataset_id, w.chunk_start)
             ORDER BY dataset_id, chunk_start LIMIT 1) AS next
    )
    SELECT 1 FROM waiting LIMIT %s
"""


def _known(place: Place) -> list[Known]:
    return [Known(*row) for row in _rows(_KNOWN, _of(place))]


_KNOWN = """
    SELECT chunk_id, space_id, parent_space_id, space_type,
           status = 'PENDING' AND not_before <= clock_timestamp(), status = 'COMPLETED',
           session_count, at_once
      FROM occupancy_space_chunks
     WHERE interval_seconds = %s AND chunk_start = %s AND chunk_end = %s
"""


def _hold(token: uuid.UUID, now: datetime, chunk_ids: list[int]) -> None:
    _change(_CLAIM, [token, now, chunk_ids])


_CLAIM = """
    UPDATE occupancy_space_chunks
       SET status = 'RUNNING', token = %s, attempt = attempt + 1, started_at = %s
     WHERE chunk_id = ANY(%s) AND status = 'PENDING'
"""


def _held(token: uuid.UUID, place: Place, known: Iterable[Known]) -> list[OccupancySpaceChunk]:
    """What the token holds, whatever is below a space before the space."""
    parent = {each.space_id: each.parent_space_id for each in known}

    def depth(chunk: OccupancySpaceChunk) -> int:
        steps, above = 0, chunk.parent_space_id
        while above is not None and above in parent and steps <= len(parent):
            steps, above = steps + 1, parent[above]
        return -steps

    held = _at(place).filter(token=token, status=Status.RUNNING).only(*_READ_OF_HELD)
    return sorted(held, key=depth)


# Thousands of rows: with all their columns they take a third longer. Whatever is read of a held chunk
# and is not named here would be a query for each of them.
_READ_OF_HELD = [
    "space_id", "parent_space_id", "dataset_id", "space_type", "interval_seconds",
    "chunk_start", "chunk_end",
]  # fmt: skip


def _at(place: Place) -> QuerySet[OccupancySpaceChunk]:
    return OccupancySpaceChunk.objects.filter(
        interval_seconds=place.interval_seconds,
        chunk_start=place.window.start,
        chunk_end=place.window.end,
    )


def _of(place: Place) -> list[Any]:
    return [place.interval_seconds, place.window.start, place.window.end]


# --- publishing -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """A chunk's file before anyone can see it, and what its row will say of it.

    A chunk has at most 35,136 bins, so its file is a small thing to hold in memory; that is where
    it waits under the token, instead of in a file of its own.
    """

    chunk: OccupancySpaceChunk
    data: bytes
    rows: int
    inputs_hash: str
    provisional: bool
    data_faults: int

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.data).hexdigest()


def inputs_hash(below: Iterable[tuple[int, str]]) -> str:
    """One hash for the (space id, content hash) of all chunks that a chunk sums."""
    text = ",".join(f"{space_id}:{content}" for space_id, content in sorted(below))
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def publish(token: uuid.UUID, made: Iterable[Made]) -> int:
    """RUNNING -> COMPLETED, file and row together, for what the token still holds; how many.

    The UPDATE locks the rows before a file is put in place, and the commit comes after: whoever
    takes a chunk over from a writer that was thought dead waits for that writer's transaction, so
    a stalled one never replaces newer data. What the token no longer holds is discarded.
    """
    published = 0
    rest = iter(made)
    while group := list(islice(rest, PUBLISHED_AT_ONCE)):
        with transaction.atomic():
            held = {chunk_id for (chunk_id,) in _rows(_PUBLISH, [*_as_columns(group), token])}
            storage.put_many(
                (storage_key(each.chunk), each.data)
                for each in group
                if each.chunk.chunk_id in held
            )
        published += len(held)
    return published


def _as_columns(group: list[Made]) -> list[list[Any]]:
    root = storage.uri(ROOT_FOLDER).removesuffix(ROOT_FOLDER)
    rows = [
        (
            each.chunk.chunk_id,
            root + storage_key(each.chunk),
            each.rows,
            each.content_hash,
            each.inputs_hash,
            each.provisional,
            each.data_faults,
        )
        for each in group
    ]
    return [list(column) for column in zip(*rows, strict=True)]


_PUBLISH = """
    UPDATE occupancy_space_chunks c
       SET status = 'COMPLETED', token = NULL, completed_at = clock_timestamp(),
           error_message = NULL, at_once = NULL, storage_path = m.storage_path,
           row_count = m.row_count,
           content_hash = m.content_hash, inputs_hash = m.inputs_hash,
           provisional = m.provisional, data_faults = m.data_faults
      FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::bool[],
                  %s::bigint[])
        AS m(chunk_id, storage_path, row_count, content_hash, inputs_hash, provisional, data_faults)
     WHERE c.chunk_id = m.chunk_id AND c.token = %s AND c.status = 'RUNNING'
    RETURNING c.chunk_id
"""


def is_settled(window: Window, computed_at: datetime) -> bool:
    """Whether the window ended so long ago that its sessions are all there."""
    settle: timedelta = settings.OCCUPANCY_SETTLE
    return window.end + settle < computed_at


# --- reading ----------------------------------------------------------------------------------


class Lost(Exception):
    """The files of these chunks are not there, or not those that their rows speak of.

    A storage that was moved or lost something; or a bucket that got a stalled writer's file late,
    in place of a newer one.
    """

    def __init__(self, lost: Sequence[OccupancySpaceChunk]) -> None:
        super().__init__(f"the files of {len(lost)} chunks are lost, first {lost[0]}")
        self.chunks = lost


def tables(complete: Iterable[OccupancySpaceChunk]) -> "list[pa.Table]":
    """The chunks' files, in their order. Lost names every one that cannot be used."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found, lost = [], []
    for chunk in complete:
        try:
            data = storage.read_bytes(storage_key(chunk))
        except storage.NotStored:
            data = b""
        if hashlib.sha256(data).hexdigest() == chunk.content_hash:
            found.append(pq.read_table(pa.BufferReader(data)))
        else:
            lost.append(chunk)
    if lost:
        raise Lost(lost)
    return found


def compute_again(lost: Lost, *, token: uuid.UUID | None = None) -> int:
    """COMPLETED -> PENDING for what was lost and is not newer by now, and all above it; how many.

    RUNNING -> PENDING for what the token holds, which needed it; that is no failure.
    """
    reset = 0
    with exclusively():
        for chunk in lost.chunks:
            if _change(_LOSE, [chunk.chunk_id, chunk.content_hash]):
                reset += 1
        if token is not None:
            _change(_GIVE_UP, [token])
        for chunk in lost.chunks:
            if chunk.parent_space_id is not None:
                width = chunk.chunk_end - chunk.chunk_start
                place = [chunk.interval_seconds, chunk.chunk_start, chunk.chunk_end, width]
                _reset_above([chunk.parent_space_id], place)
    return reset


_LOSE = """
    UPDATE occupancy_space_chunks
       SET status = 'PENDING', token = NULL, provisional = true, attempt = 0, failures = 0,
           not_before = clock_timestamp()
     WHERE chunk_id = %s AND status = 'COMPLETED' AND content_hash = %s
"""
_GIVE_UP = """
    UPDATE occupancy_space_chunks SET status = 'PENDING', token = NULL, attempt = attempt - 1
     WHERE token = %s AND status = 'RUNNING'
"""


# --- failing ----------------------------------------------------------------------------------


def fail_or_divide(token: uuid.UUID, reason: str, *, for_good: bool) -> None:
    """What the token holds failed: it is tried in halves, until what fails is alone.

    RUNNING -> PENDING for several chunks, at half the number at once. For one alone: RUNNING ->
    FAILED, and all above it with it, when the failure is `for_good` or the third; else PENDING
    after a growing back-off.
    """
    with exclusively():
        ((held, sources),) = _rows(_COUNT_HELD, [token])
        if held > 1:
            _change(_DIVIDE, [reason, sources, (sources or held) + 1, token])
        elif for_good:
            _change(_FAIL, [reason, token])
        else:
            _retry_or_fail(token, reason, MAX_FAILURES)
        _change(_FAIL_ABOVE)


def retry_after_outage(token: uuid.UUID, reason: str) -> None:
    """Something that all chunks stand on does not answer: tried again for three quarters of an hour.

    RUNNING -> PENDING, and in the end FAILED, for all that the token holds.
    """
    with exclusively():
        _retry_or_fail(token, reason, MAX_OUTAGES)
        _change(_FAIL_ABOVE)


def _retry_or_fail(token: uuid.UUID, reason: str, at_most: int) -> None:
    _change(_RETRY_OR_FAIL, [at_most, FIRST_BACK_OFF, LONGEST_BACK_OFF, reason, token])


def take_less(dataset_ids: Iterable[int | None]) -> None:
    """Halve the batches of these datasets, because one was too much for its worker."""
    _change(_TAKE_LESS, [FEWEST_SESSIONS, BATCH_SESSIONS, list(dataset_ids)])


def take_more(dataset_ids: Iterable[int | None]) -> None:
    """Let what was halved grow again, because a batch was completed."""
    _change(_TAKE_MORE, [BATCH_SESSIONS, list(dataset_ids)])


def time_limit(interval_seconds: int, space_type: str) -> timedelta:
    """For one batch of this kind: some times what such chunks took of late, run time only."""
    ((mean,),) = _rows(_MEAN, [interval_seconds, space_type, settings.CHUNK_TIMEOUT_LOOKBACK])
    least: timedelta = settings.CHUNK_TIMEOUT_MIN
    return max(least, (mean or timedelta()) * settings.CHUNK_TIMEOUT_MULTIPLIER)


def sweep() -> int:
    """RUNNING -> PENDING for what no running run holds any more, at half the number at once.

    FAILED for what was alone with its worker when that was the tenth to be lost. A row that is
    locked is being published by a writer which is alive after all.
    """
    with exclusively():
        reason = f"The worker was lost {MAX_LOST_WORKERS} times with this."
        swept = _rows(_SWEEP, [MAX_LOST_WORKERS, reason])
        if swept:
            take_less({dataset_id for (dataset_id,) in swept})
            _change(_FAIL_ABOVE)
    return len(swept)


_COUNT_HELD = """
    SELECT count(*), count(*) FILTER (WHERE space_type = 'source') FROM occupancy_space_chunks
     WHERE token = %s AND status = 'RUNNING'
"""
# What lay above the sources goes without a limit: the roll-up makes it.
_DIVIDE = """
    UPDATE occupancy_space_chunks
       SET status = 'PENDING', token = NULL, error_message = %s,
           at_once = CASE WHEN space_type = 'source' OR %s = 0 THEN %s / 2 ELSE at_once END
     WHERE token = %s AND status = 'RUNNING'
"""
_FAIL = """
    UPDATE occupancy_space_chunks
       SET status = 'FAILED', token = NULL, failures = failures + 1, error_message = %s,
           completed_at = clock_timestamp()
     WHERE token = %s AND status = 'RUNNING'
"""
_RETRY_OR_FAIL = """
    UPDATE occupancy_space_chunks
       SET status = CASE WHEN failures + 1 >= %s THEN 'FAILED' ELSE 'PENDING' END, token = NULL,
           failures = failures + 1,
           not_before = clock_timestamp() + least(%s * (4 ^ failures), %s),
           error_message = %s, completed_at = NULL
     WHERE token = %s AND status = 'RUNNING'
"""
_TAKE_LESS = """
    UPDATE occupancy_datasets
       SET sessions_at_once = greatest(%s, coalesce(sessions_at_once, %s) / 2)
     WHERE dataset_id = ANY(%s)
"""
_TAKE_MORE = """
    UPDATE occupancy_datasets
       SET sessions_at_once = CASE WHEN sessions_at_once * 3 / 2 < %s THEN sessions_at_once * 3 / 2 END
     WHERE dataset_id = ANY(%s) AND sessions_at_once IS NOT NULL
"""
_MEAN = """
    SELECT avg(took) FROM (
        SELECT completed_at - started_at AS took FROM occupancy_space_chunks
         WHERE status = 'COMPLETED' AND interval_seconds = %s AND space_type = %s
           AND completed_at >= clock_timestamp() - %s
         ORDER BY completed_at DESC LIMIT 10000) AS newest
"""
_SWEEP = """
    WITH lost AS (
        SELECT c.chunk_id, c.token, c.space_type FROM occupancy_space_chunks c
         WHERE c.status = 'RUNNING' AND NOT EXISTS (
            SELECT 1 FROM runs_run r WHERE r.token = c.token AND r.status = 'STARTED')
         FOR UPDATE OF c SKIP LOCKED
    ), batches AS (
        SELECT token, count(*) AS held, count(*) FILTER (WHERE space_type = 'source') AS sources
          FROM lost GROUP BY token
    ), limits AS (
        SELECT lost.chunk_id, batches.held = 1 AS alone,
               CASE WHEN space_type = 'source' OR sources = 0
                    THEN (CASE WHEN sources = 0 THEN held ELSE sources END + 1) / 2 END AS half
          FROM lost JOIN batches USING (token)
    ), judged AS (
        SELECT limits.*, limits.alone AND c.attempt - c.failures >= %s AS over
          FROM limits JOIN occupancy_space_chunks c USING (chunk_id)
    )
    UPDATE occupancy_space_chunks c
       SET status = CASE WHEN over THEN 'FAILED' ELSE 'PENDING' END, token = NULL,
           at_once = coalesce(half, at_once),
           error_message = CASE WHEN over THEN %s ELSE error_message END
      FROM judged WHERE c.chunk_id = judged.chunk_id
    RETURNING c.dataset_id
"""
# From what failed itself (what failed for something below has no attempt) up to the roots. The
# reason travels with it, so that any space's results say it.
_FAIL_ABOVE = """
    WITH RECURSIVE failing AS (
        SELECT parent_space_id, interval_seconds, chunk_start, chunk_end,
               'Space ' || space_id || ': ' || error_message AS reason
          FROM occupancy_space_chunks
         WHERE status = 'FAILED' AND attempt > 0
         UNION
        SELECT c.parent_space_id, c.interval_seconds, c.chunk_start, c.chunk_end, f.reason
          FROM occupancy_space_chunks c JOIN failing f
            ON c.space_id = f.parent_space_id AND c.interval_seconds = f.interval_seconds
           AND c.chunk_start = f.chunk_start AND c.chunk_end = f.chunk_end
    )
    UPDATE occupancy_space_chunks c
       SET status = 'FAILED', attempt = 0, error_message = f.reason, completed_at = clock_timestamp()
      FROM failing f
     WHERE c.space_id = f.parent_space_id AND c.interval_seconds = f.interval_seconds
       AND c.chunk_start = f.chunk_start AND c.chunk_end = f.chunk_end AND c.status = 'PENDING'
"""


# --- SQL --------------------------------------------------------------------------------------


@contextmanager
def exclusively() -> Iterator[None]:
    """A transaction in which nobody else plans, claims, retries or fails chunks."""
    with transaction.atomic():
        _rows("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        yield


def _rows(sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params or None)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def _change(sql: str, params: Sequence[Any] = ()) -> int:
    """Rows changed."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params or None)
        changed: int = cursor.rowcount
    return changed


def _array(column: Sequence[Any]) -> str:
    """A PostgreSQL array literal of numbers, plain words, times and nulls."""
    return "{" + ",".join("NULL" if each is None else str(each) for each in column) + "}"
