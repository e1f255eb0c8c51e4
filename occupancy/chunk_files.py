"""What a chunk's file holds, and how it is made from counts. Pure."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from occupancy.binning import Binned, Bins
from occupancy.tree import Ints

# What a chunk's file holds; times are UTC without a zone.
SCHEMA = pa.schema(
    [
        ("interval_begin_time", pa.timestamp("us")),
        ("number_connections", pa.int64()),
        ("number_devices", pa.int64()),
    ]
)


def tables_of(space_ids: set[int], binned: Binned) -> dict[int, pa.Table]:
    """The tables of spaces with nothing below them, as slices of one: both counts are the same.

    Making thousands of tables one by one takes as long as writing them.
    """
    bins = {space_id: binned.connections.get(space_id, Bins.none()) for space_id in space_ids}
    together = Bins.joined([Bins.none(), *bins.values()])
    table = table_of(together, together)
    tables, low = {}, 0
    for space_id, each in bins.items():
        tables[space_id] = table.slice(low, len(each.begin))
        low += len(each.begin)
    return tables


def table_of(connections: Bins, devices: Bins) -> pa.Table:
    """The file's table; a bin that one of the two lacks counts 0 there."""
    begin = connections.begin
    columns = [connections.count, devices.count]
    if not np.array_equal(begin, devices.begin):
        begin = np.union1d(connections.begin, devices.begin)
        columns = [_filled(begin, bins) for bins in (connections, devices)]
    times = (begin * 1_000_000).view("datetime64[us]")
    return pa.Table.from_arrays([pa.array(times), *map(pa.array, columns)], schema=SCHEMA)


def _filled(begin: Ints, bins: Bins) -> Ints:
    counts = np.zeros(len(begin), dtype=np.int64)
    counts[np.searchsorted(begin, bins.begin)] = bins.count
    return counts


def as_parquet(table: pa.Table) -> bytes:
    """The file of a chunk with these rows."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="snappy",
        # A dictionary of times that are all distinct would only make the small file larger, and
        # differences make it a third as large; nobody skips a part of it by statistics; Parquet's
        # own schema says all that Arrow's does.
        use_dictionary=False,
        column_encoding="DELTA_BINARY_PACKED",
        write_statistics=False,
        store_schema=False,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data
