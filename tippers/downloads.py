"""Files that an answer offers to keep: their formats, how they are made, how they are sent."""

import tempfile
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

from django.http import FileResponse, StreamingHttpResponse
from django.utils.http import content_disposition_header
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = "application/vnd.apache.parquet"
CSV = "text/csv"
FORMATS = {"parquet": PARQUET, "csv": CSV}
DOWNLOAD_BLOCK = 2**20  # each is one request when the object is in a bucket
ROW_GROUP_ROWS = 125_000


class WhateverIsAsked(DefaultContentNegotiation):
    """A file has the one type it has, so no Accept header is refused; errors are JSON.

    It keeps REST framework from taking the parameter `format` for itself, too.
    """

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        first = next(iter(renderers))
        return first, first.media_type


def as_download(content: IO[bytes] | Generator[bytes], name: str) -> StreamingHttpResponse:
    """A file, or parts of one as they are made, to be kept under `name`, which ends in its format."""
    media = FORMATS[name.rpartition(".")[2]]
    if isinstance(content, Generator):
        # A FileResponse of what is no file has no name.
        headers = {"Content-Disposition": content_disposition_header(True, name)}
        return StreamingHttpResponse(content, content_type=media, headers=headers)
    response = FileResponse(content, as_attachment=True, filename=name, content_type=media)
    response.block_size = DOWNLOAD_BLOCK
    return response


def as_file(tables: "Iterable[pa.Table]", schema: "pa.Schema", file_format: str) -> IO[bytes]:
    """The tables, one after the other, as a file on disk that is gone when it is closed.

    Memory holds one table, or as many small ones as make a row group. What goes wrong while they
    are made is raised here, before an answer has begun.
    """
    with ExitStack() as until_whole:
        file = until_whole.enter_context(tempfile.TemporaryFile(prefix="tippers-"))
        if file_format == "csv":
            file.writelines(csv_parts(schema, tables))
        else:
            _write_parquet(file, schema, tables)
        file.seek(0)
        until_whole.pop_all()
    return file


def _write_parquet(file: IO[bytes], schema: "pa.Schema", tables: "Iterable[pa.Table]") -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema, compression="snappy") as writer:
        held: list[pa.Table] = []
        for table in tables:
            held.append(table)
            if sum(each.num_rows for each in held) >= ROW_GROUP_ROWS:
                writer.write_table(pa.concat_tables(held))
                held.clear()
        writer.write_table(pa.concat_tables([schema.empty_table(), *held]))


def csv_parts(schema: "pa.Schema", rows: "Iterable[pa.Table | pa.RecordBatch]") -> Generator[bytes]:
    """CSV (RFC 4180 but for the line's end): the header, then the rows, part by part."""
    yield _as_csv(schema.empty_table(), header=True)
    for part in rows:
        yield _as_csv(part, header=False)


def _as_csv(rows: "pa.Table | pa.RecordBatch", *, header: bool) -> bytes:
    import pyarrow as pa
    from pyarrow import csv

    sink = pa.BufferOutputStream()
    csv.write_csv(rows, sink, csv.WriteOptions(include_header=header))
    data: bytes = sink.getvalue().to_pybytes()
    return data
