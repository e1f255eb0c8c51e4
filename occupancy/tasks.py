"""The background jobs of occupancy."""

from collections.abc import Iterator
from datetime import timedelta

from django.conf import settings

from occupancy import datasets
from occupancy.chunks import storage_key
from occupancy.models import OccupancySpaceChunk
from tippers import storage
from tippers.runs.engine import RunHandle, job, periodic


@job(queue="short", timeout=timedelta(hours=1))
def occupancy_plan(run: RunHandle, *, dataset_id: int) -> None:
    """Write the chunks that a dataset needs."""
    from occupancy import planning

    planning.plan(run, dataset_id, trust_final=True)


@job(queue="short", timeout=timedelta(hours=1))
def occupancy_refresh(run: RunHandle, *, dataset_id: int) -> None:
    """As `occupancy_plan`, and put back every chunk whose sessions have changed."""
    from occupancy import planning

    planning.plan(run, dataset_id, trust_final=False)


@job(queue="long", timeout=timedelta(hours=3))
def occupancy_drain(run: RunHandle) -> None:
    """Compute what waits, for a while."""
    from occupancy import batches

    batches.drain(run)
    _go_on_after(run)


@job(queue="short", timeout=timedelta(hours=1))
def occupancy_rollup(run: RunHandle) -> None:
    """Compute the spaces above what is complete, for a while."""
    from occupancy import batches

    batches.roll_up(run)
    _go_on_after(run)


def _go_on_after(run: RunHandle) -> None:
    """End the run, commit, and only then launch what waits; if we die in between, the tick does.

    Before the end, a launch under the run's own key would find the run still active. In one
    transaction with the end, a drain that launches the roll-up and a roll-up that launches the
    drain would each wait for the other's row.
    """
    run.finish()
    datasets.keep_going()


@periodic(every=settings.SOURCE_CHUNK_SENSOR_INTERVAL, name="occupancy.rollup")
def occupancy_tick() -> None:
    """See that nothing waits that could go on."""
    datasets.tick()


@storage.owner("occupancy/spaces/")
def chunk_files() -> Iterator[str]:
    """Also of chunks that are computed anew: their files keep their names."""
    for chunk in OccupancySpaceChunk.objects.iterator():
        yield storage_key(chunk)
