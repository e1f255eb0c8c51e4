"""Objects are whole or absent, on local files and on S3 alike."""

import ctypes
import hashlib
import threading
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from django.core.files.storage import default_storage
from pytest_django.fixtures import Settings

from tests.s3 import Proxy, client, proxy_before, use_s3
from tippers import storage
from tippers.errors import CannotBeDone
from tippers.storage import NotStored, StorageError

SCHEMA = pa.schema([("n", pa.int64()), ("word", pa.string())])


def batches(count: int, rows: int = 1000) -> Iterator[pa.RecordBatch]:
    for number in range(count):
        numbers = pa.array(range(number * rows, (number + 1) * rows))
        yield pa.RecordBatch.from_arrays([numbers, pc.cast(numbers, pa.string())], schema=SCHEMA)


@pytest.fixture(params=["files", "s3"])
def vendor(request: pytest.FixtureRequest, settings: Settings) -> str:
    """Each test runs on both; local files are what every test has anyway."""
    if request.param == "s3":
        use_s3(settings, request.getfixturevalue("s3_server"))
    return str(request.param)


def keys(prefix: str) -> list[str]:
    return [each.key for each in storage.listed(prefix)]


@pytest.mark.usefixtures("vendor")
def test_bytes_come_back_as_they_went() -> None:
    storage.put_bytes("a/b.bin", b"one")
    storage.put_bytes("a/b.bin", b"two")
    assert storage.read_bytes("a/b.bin") == b"two"
    assert storage.exists("a/b.bin")


@pytest.mark.usefixtures("vendor")
def test_many_objects_come_back_as_they_went() -> None:
    storage.put_bytes("many/0", b"before")
    objects = {f"many/{number}": bytes([number]) * number for number in range(30)}
    storage.put_many(objects.items())
    assert {key: storage.read_bytes(key) for key in keys("many/")} == objects


def test_many_objects_are_stored_where_the_system_has_no_syncfs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    storage.put_many([("one/a", b"1"), ("two/b", b"2")])
    assert [storage.read_bytes(key) for key in ("one/a", "two/b")] == [b"1", b"2"]


def test_of_many_that_fail_nothing_is_left_over(tmp_path: Path) -> None:
    storage.put_bytes("a", b"a file where a folder should be")
    with pytest.raises(StorageError, match="Not a directory"):
        storage.put_many([("b/c", b"x"), ("a/c", b"x"), ("b/d", b"x")])
    assert storage.read_bytes("b/c") == b"x"
    assert not storage.exists("b/d")
    assert list((tmp_path / "storage" / ".incoming").iterdir()) == []


@pytest.mark.usefixtures("vendor")
def test_what_is_not_there_says_so() -> None:
    assert not storage.exists("a")
    with pytest.raises(NotStored, match="nothing/here"):
        storage.read_bytes("nothing/here")
    with pytest.raises(NotStored):
        storage.open_parquet("nothing/here")
    storage.put_bytes("a", b"")
    storage.delete("a")
    storage.delete("a")
    assert not storage.exists("a")


@pytest.mark.usefixtures("vendor")
def test_keys_are_listed_by_prefix_in_order() -> None:
    for key in ("rules/rule_2/b", "rules/rule_10/a", "rules/rule_1/a", "indexes/index_1/a"):
        storage.put_bytes(key, b"x")
    assert keys("rules/rule_1") == ["rules/rule_1/a", "rules/rule_10/a"]
    assert keys("rules/rule_1/") == ["rules/rule_1/a"]
    assert len(keys("")) == 4
    assert keys("none/") == []


def test_a_uri_leads_back_to_its_key(vendor: str) -> None:
    uri = storage.uri("indexes/index_1/a b%20.parquet")
    assert uri.startswith({"files": "file:///", "s3": "s3://bucket/"}[vendor])
    assert storage.key_of(uri) == "indexes/index_1/a b%20.parquet"
    for foreign in ("s3://other/a", "file:///etc/passwd", ""):
        with pytest.raises(NotStored):
            storage.key_of(foreign)


@pytest.mark.parametrize("key", ["", "/a", "../a", "a/../../b", "a//b", ".incoming/a", "a/\0"])
def test_a_key_cannot_leave_the_storage(key: str) -> None:
    with pytest.raises(ValueError, match="not a storage key"):
        storage.put_bytes(key, b"x")


@pytest.mark.usefixtures("vendor")
def test_a_table_comes_back_as_it_went() -> None:
    written = storage.write_parquet("t.parquet", SCHEMA, batches(300))
    data = storage.read_bytes("t.parquet")
    assert written.rows == 300_000
    assert (written.bytes, written.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert storage.read_table("t.parquet").equals(pa.Table.from_batches(batches(300)))
    with storage.open_parquet("t.parquet") as file:
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        assert [group.num_rows for group in groups] == [125_000, 125_000, 50_000]
        assert {group.column(0).compression for group in groups} == {"SNAPPY"}


def test_numbers_and_times_at_the_ends_of_their_ranges_come_back() -> None:
    """They are stored as differences, which overflow there."""
    ends = [-(2**63), 2**63 - 1, None, 0, 2**63 - 1, -(2**63), 1, None]
    numbers = pa.array([*range(100), *ends])
    table = pa.table({"a.b": numbers, "time": numbers.cast(pa.timestamp("us", "UTC"))})
    storage.write_parquet("t.parquet", table.schema, iter(table.to_batches(50)))
    assert storage.read_table("t.parquet").equals(table)
    with storage.open_parquet("t.parquet") as file:
        group = file.metadata.row_group(0)
        assert {"DELTA_BINARY_PACKED" in group.column(at).encodings for at in (0, 1)} == {True}


def test_who_watches_sees_every_row_and_an_empty_table_too() -> None:
    seen: list[pa.Table] = []
    storage.write_parquet("t.parquet", SCHEMA, batches(300), seen.append)
    assert pa.concat_tables(seen).equals(pa.Table.from_batches(batches(300)))
    assert len(seen) == 3
    seen.clear()
    storage.write_parquet("t.parquet", SCHEMA, [], seen.append)
    assert [table.schema for table in seen] == [SCHEMA]


@pytest.mark.usefixtures("vendor")
def test_an_empty_result_is_a_table_too() -> None:
    written = storage.write_parquet("t.parquet", SCHEMA, [])
    assert written.rows == 0
    assert storage.read_table("t.parquet").schema.equals(SCHEMA)


@pytest.mark.usefixtures("vendor")
def test_columns_are_read_by_name_and_order() -> None:
    storage.write_parquet("t.parquet", SCHEMA, batches(1))
    assert storage.read_table("t.parquet", ["word", "n"]).column_names == ["word", "n"]
    with pytest.raises(CannotBeDone, match="no column z; there are: n, word"):
        storage.read_table("t.parquet", ["n", "z"])


class BrokenOffError(Exception):
    pass


@pytest.mark.usefixtures("vendor")
def test_a_producer_that_fails_leaves_what_was_there() -> None:
    before = storage.write_parquet("t.parquet", SCHEMA, batches(1))

    def failing() -> Iterator[pa.RecordBatch]:
        yield from batches(400)
        raise BrokenOffError

    for key in ("t.parquet", "new.parquet"):
        with pytest.raises(BrokenOffError):
            storage.write_parquet(key, SCHEMA, failing())
    assert keys("") == ["t.parquet"]
    assert hashlib.sha256(storage.read_bytes("t.parquet")).hexdigest() == before.sha256
    assert not [thread for thread in threading.enumerate() if "parquet" in thread.name]


@pytest.mark.usefixtures("vendor")
def test_a_writer_that_fails_stops_the_producer_at_once() -> None:
    produced = 0

    def endless() -> Iterator[pa.RecordBatch]:
        nonlocal produced
        while True:
            produced += 1
            yield pa.RecordBatch.from_pydict({"other": [1] * 100_000})

    with pytest.raises(ValueError, match="Schema"):
        storage.write_parquet("t.parquet", SCHEMA, endless())
    assert produced < 20
    assert keys("") == []


def test_nothing_is_visible_while_it_is_written(tmp_path: Path) -> None:
    def looking() -> Iterator[pa.RecordBatch]:
        for batch in batches(600):
            yield batch
            assert keys("") == []
            assert not storage.exists("a/t.parquet")

    storage.write_parquet("a/t.parquet", SCHEMA, looking())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [tmp_path / "storage" / "a" / "t.parquet"]


def test_writing_takes_the_memory_of_a_few_batches() -> None:
    """16 MB per row group, whatever the rows are: 600 MB pass through here."""
    pool = pa.default_memory_pool()
    wide = pa.RecordBatch.from_pydict({"text": ["x" * 1000] * 2000})
    highest = 0

    def rows() -> Iterator[pa.RecordBatch]:
        nonlocal highest
        for _ in range(300):
            highest = max(highest, pool.bytes_allocated())
            yield pa.RecordBatch.from_pydict({"text": wide.column(0)})

    before = pool.bytes_allocated()
    tracemalloc.start()
    storage.write_parquet("t.parquet", wide.schema, (copied(batch) for batch in rows()))
    _, python_peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert highest - before < 100 * 2**20
    assert python_peak < 50 * 2**20


def copied(batch: pa.RecordBatch) -> pa.RecordBatch:
    """With buffers of its own, as batches from a database have."""
    return pa.RecordBatch.from_arrays(
        [pc.binary_join_element_wise(column, "", "") for column in batch.columns],
        schema=batch.schema,
    )


def test_a_full_disk_is_a_fault_of_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full refuses every byte, as a full disk does."""
    root = Path(storage.uri("x").removeprefix("file://")).parent

    def full(self: Any) -> Any:
        root.mkdir(parents=True, exist_ok=True)
        link = root / "full"
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/full")
        return link.open("wb", buffering=0)

    monkeypatch.setattr(storage._Folder, "incoming", full)
    for write in (
        lambda: storage.put_bytes("a", b"x"),
        lambda: storage.write_parquet("a", SCHEMA, batches(3)),
    ):
        with pytest.raises(StorageError, match="No space left"):
            write()
    assert not storage.exists("a")


def test_a_damaged_object_is_a_fault_of_the_storage() -> None:
    storage.put_bytes("t.parquet", b"PAR1 what is this PAR1")
    with pytest.raises(StorageError, match="damaged"):
        storage.read_table("t.parquet")


def test_an_s3_that_does_not_answer_is_a_fault_of_the_storage(settings: Settings) -> None:
    from botocore.config import Config

    options = {
        "bucket_name": "bucket",
        "access_key": "key",
        "secret_key": "secret",
        "endpoint_url": "http://127.0.0.1:9",
        "client_config": Config(retries={"max_attempts": 1}, connect_timeout=1),
    }
    default = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "default": default}
    for use in (
        lambda: storage.put_bytes("a", b"x"),
        lambda: storage.read_bytes("a"),
        lambda: storage.exists("a"),
        lambda: keys(""),
    ):
        with pytest.raises(StorageError):
            use()


def test_a_large_object_goes_to_s3_in_parts(settings: Settings, s3_server: str) -> None:
    use_s3(settings, s3_server)
    data = bytes(range(256)) * 2**16  # 16 MiB, twice what boto3 sends in one part
    storage.put_bytes("large", data)
    assert storage.read_bytes("large") == data
    client = default_storage.connection.meta.client  # type: ignore[attr-defined]  # the S3 one
    head = client.head_object(Bucket="bucket", Key="large")
    assert "-" in head["ETag"]  # how S3 marks what came in parts


@pytest.fixture
def proxy(settings: Settings, s3_server: str) -> Iterator[Proxy]:
    """The storage is S3 behind a proxy; a request is tried twice."""
    from botocore.config import Config

    with proxy_before(s3_server) as proxy:
        retries = {"total_max_attempts": 2, "mode": "legacy"}
        use_s3(
            settings,
            s3_server,
            endpoint_url=proxy.url,
            client_config=Config(retries=retries, s3={"addressing_style": "path"}),
        )
        yield proxy


LARGE = bytes(range(256)) * 2**16


@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD", "DELETE"])
def test_a_503_in_the_middle_passes_unnoticed(proxy: Proxy, method: str) -> None:
    written = storage.write_parquet("t.parquet", SCHEMA, batches(300))
    proxy.refuse(1, method)
    storage.put_bytes("large", LARGE)
    assert storage.read_table("t.parquet").num_rows == written.rows
    assert keys("") == ["large", "t.parquet"]
    storage.delete("t.parquet")
    assert not storage.exists("t.parquet")
    assert storage.read_bytes("large") == LARGE
    assert len(proxy.refused) == 1


def test_a_503_that_stays_is_a_fault_of_the_storage(proxy: Proxy) -> None:
    storage.write_parquet("t.parquet", SCHEMA, batches(300))
    with storage.open_parquet("t.parquet") as file:
        for method, use in (
            ("PUT", lambda: storage.put_bytes("a", b"x")),
            ("PUT", lambda: storage.write_parquet("a", SCHEMA, batches(3))),
            ("GET", lambda: file.read_row_group(0)),  # opened before
            ("GET", lambda: keys("")),
            ("HEAD", lambda: storage.exists("a")),
            ("DELETE", lambda: storage.delete("t.parquet")),
        ):
            proxy.refuse(2, method)
            with pytest.raises(StorageError, match="storage failed"):
                use()
            assert proxy.refusals == 0
    assert keys("") == ["t.parquet"]


def test_an_upload_that_breaks_off_shows_nothing_and_leaves_no_parts(
    proxy: Proxy, s3_server: str
) -> None:
    storage.put_bytes("large", b"as it was")
    proxy.refuse(4, "PUT")  # two parts, twice each
    with pytest.raises(StorageError):
        storage.put_bytes("large", LARGE)
    assert all("partNumber" in path for path in proxy.refused)
    assert storage.read_bytes("large") == b"as it was"
    assert "Uploads" not in client(s3_server).list_multipart_uploads(Bucket="bucket")


@pytest.mark.usefixtures("vendor")
def test_a_listing_tells_when_an_object_was_written() -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)  # S3 keeps whole seconds
    storage.put_bytes("a/b", b"")
    (found,) = storage.listed("a/")
    assert before < found.modified < datetime.now(UTC)
