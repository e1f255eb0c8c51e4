"""Which chunks a dataset needs: one scan of its sessions, then a statement for many rows at once."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
    width = timedelta(days=dataset.chunk_days)
    windows = aligned_windows(dataset.chunks_start, dataset.chunks_end, width=width)
    parents = spaces.parents_below(dataset.root_space_id)
    found = sessions.counted(
        parents.keys(),
        Window(dataset.chunks_start, dataset.chunks_end),
        width=width,
        now=chunks.clock(),
        on_stop=run.on_stop,
    )
    run.log(f"{len(found)} source chunks")
    *before, last = blocks(len(windows), spaces=len(parents))

    def write(block: range) -> int:
        return chunks.plan(
            # Up to the dataset's root and no further.
            planned(found, block, parents=parents | {dataset.root_space_id: None}),
            parents=parents,
            windows=[windows[number] for number in block],
            interval_seconds=dataset.interval_seconds,
            dataset_id=dataset.dataset_id,
            trust_final=trust_final,
        )

    changed = 0
    for block in before:  # each commits, so that what others do meanwhile does not wait for all
        run.check()
        changed += write(block)
    # The lock comes before the run's row and the dataset's, as in a retry: each would wait for what
    # the other holds.
    with chunks.exclusively(), run.finishing():
        changed += write(last)
        run.log(f"{changed} chunks to compute")
        OccupancyDataset.objects.filter(dataset_id=dataset_id).update(planned_at=Clock())
    datasets.settle()
    datasets.keep_going()


def blocks(windows: int, *, spaces: int) -> list[range]:
    """The windows' numbers in runs of which each has some PLANNED_AT_ONCE chunks at most."""
    step = max(PLANNED_AT_ONCE // spaces, 1)
    return [range(first, min(first + step, windows)) for first in range(0, windows, step)]


def planned(found: pa.Table, block: range, *, parents: dict[int, int | None]) -> Planned:
    """The chunks of a block of windows, which are numbered from its first.

    `found` is what `sessions.counted` returns. Sources and all above them, each place once; a place
    with something below it is derived. Pure.
    """
    number = found["window"]
    found = found.filter(
        pc.and_(pc.greater_equal(number, block.start), pc.less(number, block.stop))
    )
    space_ids = found["space_id"].to_numpy().astype(np.int64)
    numbers = found["window"].to_numpy() - block.start
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
