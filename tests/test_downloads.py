"""Files that answers offer: whole, in parts of bounded size, or not at all."""

import csv
import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tippers.downloads import ROW_GROUP_ROWS, as_file

SCHEMA = pa.schema([("n", pa.int64()), ("name", pa.string())])


def tables(rows: int, of: int) -> Iterator[pa.Table]:
    for first in range(0, rows, of):
        numbers = range(first, min(first + of, rows))
        names = [f'"{n}", said' for n in numbers]
        yield pa.table({"n": list(numbers), "name": names}, schema=SCHEMA)


def test_small_tables_become_row_groups_of_a_size() -> None:
    with as_file(tables(300_000, 50_000), SCHEMA, "parquet") as file:
        found = pq.ParquetFile(file)
        sizes = [found.metadata.row_group(n).num_rows for n in range(found.num_row_groups)]
        assert [size for size in sizes if size] == [150_000, 150_000]
        assert max(sizes) < 2 * ROW_GROUP_ROWS
        assert found.read()["n"].to_pylist() == list(range(300_000))


def test_csv_has_one_header_whatever_the_parts() -> None:
    with as_file(tables(7, 3), SCHEMA, "csv") as file:
        rows = list(csv.reader(io.StringIO(file.read().decode())))
    assert rows == [["n", "name"], *([str(n), f'"{n}", said'] for n in range(7))]


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_without_rows_there_are_still_columns(file_format: str) -> None:
    with as_file([], SCHEMA, file_format) as file:
        content = file.read()
    if file_format == "csv":
        assert content == b'"n","name"\n'
    else:
        assert pq.read_table(pa.BufferReader(content)).schema.names == ["n", "name"]


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_what_goes_wrong_on_the_way_is_raised_before_an_answer_begins(file_format: str) -> None:
    def lost() -> Iterator[pa.Table]:
        yield from tables(3, 3)
        raise LookupError("the second part is lost")

    with pytest.raises(LookupError):
        as_file(lost(), SCHEMA, file_format)
