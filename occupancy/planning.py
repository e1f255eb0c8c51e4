"""Which chunks a dataset needs: windows are counted and their rows written, block by block."""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pyarrow as pa

from occupancy import chunks, datasets, sessions, spaces
from occupancy.chunks import Planned
from occupancy.models import OccupancyDataset
from occupancy.rollup import places_above
from tippers.errors import CannotBeDone
from tippers.partitions import Window, aligned_windows
from tippers.runs.claims import Clock
from tippers.runs.engine import RunHandle

# Chunks whose rows are written by one statement, in which nobody else claims anything: a few
# seconds. Twelve million at once would be two gigabytes of text, and the server takes one.
PLANNED_AT_ONCE = 200_000


def plan(run: RunHandle, dataset_id: int, *, trust_final: bool) -> None:
    """As `_plan`; when it cannot be done, the dataset says why at once and not at the next tick."""
    try:
        _plan(run, dataset_id, trust_final=trust_final)
    except CannotBeDone as refused:
        datasets.fail_planning(dataset_id, run.run_id, refused.detail)
        raise


def _plan(run: RunHandle, dataset_id: int, *, trust_final: bool) -> None:
    """Write the chunks that the dataset needs, put back what must be made again, finish the run.

    Sources are found over the whole aligned windows and not over the range asked for, so a chunk
    is right for whoever reuses it. A space has a chunk in the windows in which it, or a space
    below it, has sessions.
    """
    dataset = OccupancyDataset.objects.filter(dataset_id=dataset_id).first()
    if dataset is not None and dataset.chunks_start is None:
        datasets.look_for_sessions(dataset)
    if dataset is None or dataset.chunks_start is None or dataset.chunks_end is None:
        return  # deleted meanwhile, or without any data: nothing to plan
    windows = aligned_windows(
        dataset.chunks_start, dataset.chunks_end, width=timedelta(days=dataset.chunk_days)
    )
    parents = spaces.parents_below(dataset.root_space_id)

    def count(block: Sequence[Window]) -> pa.Table:
        return sessions.counted(parents.keys(), block, now=chunks.clock(), on_stop=run.on_stop)

    def write(block: Sequence[Window], found: pa.Table) -> int:
        return chunks.plan(
            # Up to the dataset's root and no further.
            planned(found, parents=parents | {dataset.root_space_id: None}),
            parents=parents,
            windows=block,
            interval_seconds=dataset.interval_seconds,
            dataset_id=dataset.dataset_id,
            trust_final=trust_final,
        )

    sources = changed = 0
    *before, last = blocks(windows, spaces=len(parents))
    for block in before:  # each commits, and is computed while the next is counted
        found = count(block)
        sources += len(found)
        changed += write(block, found)
        datasets.keep_going()
    found = count(last)
    run.log(f"{sources + len(found)} source chunks")
    # The lock comes before the run's row and the dataset's, as in a retry: each would wait for what
    # the other holds.
    with chunks.exclusively(), run.finishing():
        changed += write(last, found)
        run.log(f"{changed} chunks to compute")
        OccupancyDataset.objects.filter(dataset_id=dataset_id).update(planned_at=Clock())
    datasets.settle()
    datasets.keep_going()


def blocks(windows: Sequence[Window], *, spaces: int) -> list[Sequence[Window]]:
    """The windows in runs of one, two, four and so on, of some PLANNED_AT_ONCE chunks at most.

    One comes first so that its computation begins at once; later ones save statements.
    """
    most = max(PLANNED_AT_ONCE // spaces, 1)
    found, first, size = [], 0, 1
    while first < len(windows):
        found.append(windows[first : first + size])
        first, size = first + size, min(2 * size, most)
    return found


def planned(found: pa.Table, *, parents: dict[int, int | None]) -> Planned:
    """The chunks of a block of windows, which are numbered from its first.

    `found` is what `sessions.counted` returns. Sources and all above them, each place once; a place
    with something below it is derived. Pure.
    """
    space_ids = found["space_id"].to_numpy().astype(np.int64)
    numbers = found["window"].to_numpy().astype(np.int64)
    above, above_numbers = places_above(space_ids, numbers, parents=parents)
    windows = int(numbers.max()) + 1 if len(numbers) else 1
    known = np.array(sorted(parents), dtype=np.int64)
    source = np.searchsorted(known, space_ids) * windows + numbers
    derived = np.searchsorted(known, above) * windows + above_numbers
    places = np.union1d(source, derived)
    position = np.searchsorted(places, source)
    sessions_of = np.zeros(len(places), dtype=np.int64)
    sessions_of[position] = found["sessions"].to_numpy()
    fingerprints = np.full(len(places), None, dtype=object)
    fingerprints[position] = found["fingerprint"].to_numpy()
    return Planned(
        space_ids=known[places // windows],
        windows=places % windows,
        derived=np.isin(places, derived).tolist(),
        sessions=sessions_of,
        fingerprints=fingerprints.tolist(),
    )
