"""Which chunks a dataset needs: one scan of its sessions, then one statement for all rows."""

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
    # Up to the dataset's root and no further.
    planned = _planned(found, parents=parents | {dataset.root_space_id: None})
    run.log(f"{len(found)} source chunks, {len(planned.space_ids)} with what lies above them")
    # The lock comes before the run's row and the dataset's, as in a retry: each would wait for what
    # the other holds.
    with chunks.exclusively(), run.finishing():
        changed = chunks.plan(
            planned,
            parents=parents,
            windows=windows,
            interval_seconds=dataset.interval_seconds,
            dataset_id=dataset.dataset_id,
            trust_final=trust_final,
        )
        run.log(f"{changed} chunks to compute")
        OccupancyDataset.objects.filter(dataset_id=dataset_id).update(planned_at=Clock())
    datasets.settle()
    datasets.keep_going()


def _planned(found: pa.Table, *, parents: dict[int, int | None]) -> Planned:
    """Sources and all above them, each place once; a place with something below it is derived."""
    space_ids = found["space_id"].to_numpy().astype(np.int64)
    numbers = found["window"].to_numpy()
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
