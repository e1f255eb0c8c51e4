"""Objects in storage: whole or absent, addressed by key; tables among them as Parquet.

`STORAGES["default"]` chooses the vendor: a folder of local files or an S3 bucket. Nothing above
this module knows which. A key is a relative path with forward slashes; the URI of an object
(`file:///...` or `s3://bucket/key`) is what the API shows and the database remembers.

Errors: `NotStored` when an object is missing, `StorageError` when the vendor is at fault.
"""

import ctypes
import hashlib
import io
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from django.core.files.storage import FileSystemStorage, default_storage

from tippers.errors import CannotBeDone, NotFound, Unavailable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROW_GROUP_ROWS = 125_000  # larger ones cost memory (80 MB more at twice that) and save no time
ROW_GROUP_BYTES = 16 * 2**20  # wide rows reach this first, so that memory stays bounded
QUEUED_BATCHES = 4  # of some 4 MB
DICTIONARY_SAMPLE = 50_000  # rows
WRITERS = 16  # of small objects, all waiting for a bucket


class StorageError(Unavailable):
    """The storage does not do what it was asked: full, unreachable, forbidden or damaged."""


class NotStored(NotFound):
    """There is no object under this key or URI."""


@dataclass(frozen=True)
class Written:
    """What a table became: its rows, the object's size in bytes and its SHA-256 in hex."""

    rows: int
    bytes: int
    sha256: str


def write_parquet(
    key: str,
    schema: "pa.Schema",
    batches: "Iterable[pa.RecordBatch]",
    watch: "Callable[[pa.Table], None]" = lambda _: None,
) -> Written:
    """Stream `batches`, all of `schema`, into one Parquet object (snappy).

    A second thread encodes and writes while this one waits for the next batch, with a few batches
    between them, so memory does not grow with the table. That thread shows `watch` each row group,
    and an empty table when there is none. An error on either side ends both and is raised here;
    nothing becomes visible then.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _arriving(key) as file:
        sink = _Hashing(file)
        queue: Queue[pa.RecordBatch | None] = Queue(maxsize=QUEUED_BATCHES)
        failures: list[BaseException] = []
        written_rows = 0

        def write() -> None:
            nonlocal written_rows
            arriving = iter(queue.get, None)
            try:
                tables = _row_groups(arriving, schema)
                first = next(tables, None)
                encodings = _encodings(schema.empty_table() if first is None else first)
                with pq.ParquetWriter(sink, schema, compression="snappy", **encodings) as writer:
                    for table in chain([] if first is None else [first], tables):
                        writer.write_table(table, row_group_size=table.num_rows)
                        watch(table)
                        written_rows += table.num_rows
                if first is None:
                    watch(schema.empty_table())
            except BaseException as error:  # noqa: BLE001 - raised again by the reading thread
                failures.append(error)
            finally:
                for _ in arriving:  # after a failure: the reading thread must not wait for room
                    pass

        thread = Thread(target=write, name=f"parquet {key}")
        thread.start()
        try:
            for batch in batches:
                queue.put(batch)
                if failures:
                    break
        finally:
            queue.put(None)
            thread.join()
        if failures:
            raise _as_storage_error(failures[0], key)
    return Written(rows=written_rows, bytes=sink.size, sha256=sink.digest.hexdigest())


def _row_groups(batches: "Iterable[pa.RecordBatch]", schema: "pa.Schema") -> "Iterator[pa.Table]":
    """Collect batches to tables of a row group's size; the last one is smaller."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        size += batch.get_total_buffer_size()
        if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(held, schema)
            held, rows, size = [], 0, 0
    if rows:
        yield pa.Table.from_batches(held, schema)


def _encodings(table: "pa.Table") -> dict[str, Any]:
    """How the columns of tables like this one are laid out in the file.

    A dictionary where values come again: looking up values that seldom come twice takes half of
    the time of writing, and the file becomes larger by it. Differences for other whole numbers
    and times, which are as fast to write, a third smaller for values at random and almost nothing
    for regular ones; and what is small is hashed, synced and read sooner.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    repetitive: list[str] = []
    differences: dict[str, str] = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_nested(field.type):
            continue
        sample = column.slice(0, DICTIONARY_SAMPLE)
        if pc.count_distinct(sample, mode="all").as_py() * 2 <= len(sample):
            repetitive.append(field.name)
        elif pa.types.is_timestamp(field.type) or pa.types.is_int64(field.type):
            differences[field.name] = "DELTA_BINARY_PACKED"
    return {"use_dictionary": repetitive, "column_encoding": differences or None}


class _Hashing(io.RawIOBase):
    """A file to write to that counts and hashes what passes; Parquet never seeks back."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.size = 0
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.file.write(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size


def put_bytes(key: str, data: bytes) -> None:
    """Store `data` under `key`, in place of what was there."""
    with _arriving(key) as file, _translated(key):
        file.write(data)


def put_many(objects: Iterable[tuple[str, bytes]]) -> None:
    """Store small objects, each in place of what was there; on return all of them are durable.

    Ten thousand files one by one would wait for the disk twenty thousand times. They are held in
    memory by whoever passes them, and taken one after the other. When this raises, some may be
    stored and others not; none is in part.
    """
    with _translated("many"):
        _vendor().put_many(objects)


def read_bytes(key: str) -> bytes:
    """The whole object."""
    with _translated(key), _vendor().open(key) as file:
        return file.read()


def open_bytes(key: str) -> IO[bytes]:
    """The object as a file to read and seek in; a large read from a bucket is one request."""
    with _translated(key):
        return _vendor().open(key)


def open_parquet(key: str) -> "pq.ParquetFile":
    """A Parquet object to read by row group or column; only what is read travels."""
    import pyarrow.parquet as pq

    with _translated(key):
        return pq.ParquetFile(_vendor().open_arrow(key))


def read_table(key: str, columns: list[str] | None = None) -> "pa.Table":
    """A Parquet object as a table, `columns` of it in that order; a missing one is named."""
    with open_parquet(key) as file, _translated(key):
        there = file.schema_arrow.names
        # pyarrow leaves out what it does not find, and the caller would fail far from the cause.
        if missing := [name for name in columns or [] if name not in there]:
            raise CannotBeDone(
                f"There is no column {', '.join(missing)}; there are: {', '.join(there)}."
            )
        table = file.read(columns=columns)
    return table if columns is None else table.select(columns)


def exists(key: str) -> bool:
    with _translated(key):
        return _vendor().exists(key)


def delete(key: str) -> None:
    """Remove the object; one that is gone already is no error."""
    with _translated(key):
        _vendor().delete(key)


@dataclass(frozen=True)
class Listed:
    """An object as a listing shows it; `modified` is an aware time."""

    key: str
    modified: datetime


def listed(prefix: str) -> Iterator[Listed]:
    """Objects whose keys begin with `prefix`, in the keys' order."""
    with _translated(prefix):
        yield from _vendor().listed(prefix)


def uri(key: str) -> str:
    """Where the object is, for people and for the database: `file:///...` or `s3://bucket/key`."""
    return _vendor().uri(key)


def key_of(uri: str) -> str:
    """The key of an object of this storage by its URI; NotStored for one of another storage."""
    root = _vendor().uri("")
    if not uri.startswith(root) or uri == root:
        raise NotStored(f"{uri} is not in the storage in use, {root}")
    key = uri.removeprefix(root)
    return unquote(key) if urlsplit(root).scheme == "file" else key


# --- orphans -----------------------------------------------------------------------------------

# By prefix: the URIs or keys of the objects below it that rows point to. An app declares its own
# where it declares its jobs, because storage knows no app.
_OWNERS: dict[str, Callable[[], Iterable[str]]] = {}


def owner(
    prefix: str,
) -> Callable[[Callable[[], Iterable[str]]], Callable[[], Iterable[str]]]:
    """Declare which objects below `prefix` (with its slash) are needed; `sweep` removes others."""

    def declare(needed: Callable[[], Iterable[str]]) -> Callable[[], Iterable[str]]:
        _OWNERS[prefix] = needed
        return needed

    return declare


def sweep(older_than: timedelta) -> int:
    """Remove what no row points to and what no writer finished; how many objects went.

    Such are left by a process that died between writing and committing, and by deleted rows.
    `older_than` must exceed what any run takes: what is younger may yet become current.
    """
    before = datetime.now(UTC) - older_than
    removed = 0
    for prefix, needed in _OWNERS.items():
        # Listed first: what becomes current after that is not among the old ones.
        old = {each.key for each in listed(prefix) if each.modified < before}
        if old:
            # By the part below the prefix: a storage that was moved is not a storage of orphans.
            old.difference_update(prefix + uri.rpartition(prefix)[2] for uri in needed())
        for key in sorted(old):
            delete(key)
        removed += len(old)
    with _translated("what was not finished"):
        _vendor().discard_unfinished(before)
    return removed


# --- vendors -----------------------------------------------------------------------------------


class _Folder:
    """Objects as files below one folder."""

    # What is being written lies beside the objects, on the same file system, so that a rename
    # makes it visible, and under a name that no key begins with.
    INCOMING = ".incoming"

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        return self.root / _checked(key)

    def incoming(self) -> IO[bytes]:
        path = self.root / self.INCOMING / uuid.uuid4().hex
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")

    def keep(self, file: IO[bytes], key: str) -> None:
        file.flush()
        os.fsync(file.fileno())
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        Path(file.name).replace(target)
        # The new name, too, must outlive a power failure: the database will point to it.
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def put_many(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Two waits for the disk: one for all data, and after the renames one for all names.

        Paths are texts here, because making `Path`s of them takes as long as writing the files.
        """
        incoming = f"{self.root}/{self.INCOMING}"
        os.makedirs(incoming, exist_ok=True)  # noqa: PTH103 - see above
        arriving = f"{incoming}/{uuid.uuid4().hex}"
        written: list[tuple[str, str]] = []
        try:
            for number, (key, data) in enumerate(objects):
                target = f"{self.root}/{_checked(key)}"
                with open(f"{arriving}-{number}", "xb", buffering=0) as file:  # noqa: PTH123 - see above
                    written.append((file.name, target))
                    file.write(data)
            _make_durable([source for source, _ in written], incoming)
            for source, target in written:
                try:
                    os.replace(source, target)  # noqa: PTH105 - see above
                except FileNotFoundError:
                    os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120 - see above
                    os.replace(source, target)  # noqa: PTH105 - see above
            _make_durable({os.path.dirname(target) for _, target in written}, incoming)  # noqa: PTH120 - see above
        except BaseException:
            for source, _ in written:
                Path(source).unlink(missing_ok=True)
            raise

    def discard(self, file: IO[bytes]) -> None:
        file.close()
        Path(file.name).unlink(missing_ok=True)

    def open(self, key: str) -> IO[bytes]:
        return self.path(key).open("rb")

    def open_arrow(self, key: str) -> "pa.NativeFile":
        import pyarrow as pa

        return pa.OSFile(str(self.path(key)))

    def exists(self, key: str) -> bool:
        return self.path(key).is_file()

    def delete(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    def listed(self, prefix: str) -> Iterator[Listed]:
        start = self.root / prefix.rpartition("/")[0]
        found = []
        for folder, folders, files in os.walk(start):
            if self.INCOMING in folders:
                folders.remove(self.INCOMING)
            found += [(Path(folder) / name).relative_to(self.root).as_posix() for name in files]
        for key in sorted(found):
            # One that was deleted meanwhile is not there.
            if key.startswith(prefix) and (modified := self._modified(self.root / key)):
                yield Listed(key, modified)

    def discard_unfinished(self, before: datetime) -> None:
        for path in (self.root / self.INCOMING).glob("*"):
            modified = self._modified(path)
            if modified is not None and modified < before:
                path.unlink(missing_ok=True)

    @staticmethod
    def _modified(path: Path) -> datetime | None:
        try:
            return datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except FileNotFoundError:
            return None

    def uri(self, key: str) -> str:
        return self.path(key).as_uri() if key else self.root.as_uri() + "/"


def _make_durable(paths: Iterable[str], place: str) -> None:
    """Have the disk keep files and folders, all of which lie on the file system of `place`."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)  # Linux has it
        if syncfs is not None:
            if syncfs(descriptor):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            return
    finally:
        os.close(descriptor)
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _Bucket:
    """Objects in an S3 bucket, below the storage's `location` if it has one."""

    def __init__(self, storage: Any) -> None:
        self.bucket = storage.bucket
        self.client = storage.connection.meta.client
        self.root = f"{storage.location.strip('/')}/" if storage.location else ""

    def name(self, key: str) -> str:
        return self.root + _checked(key)

    def incoming(self) -> IO[bytes]:
        return tempfile.TemporaryFile(prefix="tippers-")

    def keep(self, file: IO[bytes], key: str) -> None:
        file.seek(0)
        # In parts when it is large; S3 shows the object when the last part is there. It closes
        # the file that it is given, hence the second handle.
        with os.fdopen(os.dup(file.fileno()), "rb") as source:
            self.bucket.upload_fileobj(source, self.name(key))

    def put_many(self, objects: Iterable[tuple[str, bytes]]) -> None:
        def put(object_: tuple[str, bytes]) -> None:
            key, data = object_
            self.client.put_object(Bucket=self.bucket.name, Key=self.name(key), Body=data)

        # Putting a small object is waiting for the bucket to answer.
        with ThreadPoolExecutor(WRITERS, thread_name_prefix="storage") as writers:
            list(writers.map(put, objects))

    def discard(self, file: IO[bytes]) -> None:
        file.close()

    def open_arrow(self, key: str) -> "pa.NativeFile":
        import pyarrow as pa

        return pa.PythonFile(self.open(key), mode="r")

    def open(self, key: str) -> IO[bytes]:
        return io.BufferedReader(_Ranged(self.client, self.bucket.name, self.name(key)), 2**16)

    def exists(self, key: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            self.client.head_object(Bucket=self.bucket.name, Key=self.name(key))
        except ClientError as error:
            if _is_missing(error):
                return False
            raise
        return True

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket.name, Key=self.name(key))

    def listed(self, prefix: str) -> Iterator[Listed]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket.name, Prefix=self.root + prefix
        )
        for page in pages:
            for item in page.get("Contents", []):
                yield Listed(item["Key"].removeprefix(self.root), item["LastModified"])

    def discard_unfinished(self, before: datetime) -> None:
        """Parts of uploads that never ended are shown nowhere, and paid for."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket.name, Prefix=self.root
        )
        for page in pages:
            for upload in page.get("Uploads", []):
                if upload["Initiated"] < before:
                    self.client.abort_multipart_upload(
                        Bucket=self.bucket.name, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket.name}/{self.name(key) if key else self.root}"


class _Ranged(io.RawIOBase):
    """One S3 object as a file to seek in: a Parquet footer or column costs its own bytes only."""

    def __init__(self, client: Any, bucket: str, name: str) -> None:
        self.client = client
        self.place = {"Bucket": bucket, "Key": name}
        head = client.head_object(**self.place)
        self.size = head["ContentLength"]
        self.etag = head["ETag"]
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = max(0, start + offset)
        return self.position

    def tell(self) -> int:
        return self.position

    def readall(self) -> bytes:
        # Inherited, it would ask for 8 KiB at a time.
        return self._get(self.size)

    def readinto(self, buffer: Any) -> int:
        data = self._get(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _get(self, length: int) -> bytes:
        last = min(self.position + length, self.size) - 1
        if last < self.position:
            return b""
        # pyarrow reads long after `open_parquet` has returned, and passes on what is raised here.
        with _translated(self.place["Key"]):
            answer = self.client.get_object(
                **self.place,
                Range=f"bytes={self.position}-{last}",
                IfMatch=self.etag,  # replaced while we read: an error, never a mixture
            )
            data: bytes = answer["Body"].read()
        self.position += len(data)
        return data


def _vendor() -> _Folder | _Bucket:
    if isinstance(default_storage, FileSystemStorage):
        return _Folder(Path(default_storage.location))
    return _Bucket(default_storage)


def _checked(key: str) -> str:
    """Keys are ours, so a key that would leave the storage or hide in it is a bug."""
    parts = key.split("/")
    if any(part in {"", ".", ".."} for part in parts) or parts[0].startswith(".") or "\0" in key:
        raise ValueError(f"{key!r} is not a storage key")
    return key


@contextmanager
def _arriving(key: str) -> Iterator[IO[bytes]]:
    """A file that becomes the object when the block ends, and nothing at all when it raises.

    What the block raises passes untouched: a producer's error is not the storage's fault.
    """
    vendor = _vendor()
    with _translated(key):
        file = vendor.incoming()
    try:
        yield file
        with _translated(key):
            vendor.keep(file, key)
    finally:
        vendor.discard(file)


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        translated = _as_storage_error(error, key)
        if translated is error:
            raise
        raise translated from error


def _as_storage_error(error: BaseException, key: str) -> BaseException:
    """A vendor's error in our words; any other stays as it is."""
    if isinstance(error, FileNotFoundError) or _is_missing(error):
        return NotStored(f"There is no stored object {key}.")
    if isinstance(error, OSError):
        return StorageError(f"The storage failed on {key}: {error.strerror or error}.")

    import pyarrow as pa
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, ClientError | BotoCoreError | Boto3Error):
        return StorageError(f"The storage failed on {key}: {error}.")
    if isinstance(error, pa.ArrowInvalid) and "Parquet" in str(error):
        return StorageError(f"The stored object {key} is damaged: {error}.")
    return error


def _is_missing(error: BaseException) -> bool:
    answer = getattr(error, "response", None) or {}
    return answer.get("Error", {}).get("Code") in {"404", "NoSuchKey"}
