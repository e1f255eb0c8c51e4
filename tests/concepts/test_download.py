"""A product as a file."""

import io
from typing import Any

import pyarrow.parquet as pq
import pytest
from django.core.files.storage import default_storage
from pytest_django.fixtures import Settings

from concepts.models import Index
from tests.concepts.conftest import Campus
from tests.conftest import body
from tests.s3 import use_s3
from tippers import storage

pytestmark = pytest.mark.django_db(transaction=True)  # runs read over their own connection


def downloaded(response: Any) -> bytes:
    assert response.streaming
    return b"".join(response.streaming_content)


def test_the_file_is_the_current_product_to_the_byte(campus: Campus) -> None:
    index_id = campus.materialized_index()["index_id"]
    response = campus.api.get(f"{campus.root}/indexes/{index_id}/download")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/vnd.apache.parquet"
    assert response["Content-Disposition"] == (f'attachment; filename="index_{index_id}.parquet"')
    content = downloaded(response)
    assert response["Content-Length"] == str(len(content))
    asset = Index.objects.get(pk=index_id)
    assert content == storage.read_bytes(asset.storage_key)
    assert pq.read_table(io.BytesIO(content)).column("mac").to_pylist() == [
        "aa", "bb", "cc", "it's", None,
    ]  # fmt: skip


def test_rules_and_features_can_be_downloaded_too(campus: Campus) -> None:
    index_id = campus.materialized_index()["index_id"]
    definition = {"name": "r", "index_id": index_id, "sql_query": "SELECT 1 AS one"}
    for family, pk in (("rules", "r_id"), ("features", "feature_id")):
        made = campus.create(family, **definition)[pk]
        campus.materialize(family, made)
        response = campus.api.get(f"{campus.root}/{family}/{made}/download")
        table = pq.read_table(io.BytesIO(downloaded(response)))
        assert table.to_pydict() == {"one": [1]}


def test_it_comes_in_pieces_and_not_as_a_whole(campus: Campus) -> None:
    index_id = campus.materialized_index(
        sql="SELECT n, md5(n::text) AS text FROM generate_series(1, 100000) AS n"
    )["index_id"]
    response: Any = campus.api.get(f"{campus.root}/indexes/{index_id}/download")
    pieces = [len(piece) for piece in response.streaming_content]
    assert sum(pieces) == int(response["Content-Length"]) > 3 * 2**20
    assert max(pieces) <= 2**20


def test_from_a_bucket_each_piece_is_one_request(
    campus: Campus, settings: Settings, s3_server: str
) -> None:
    use_s3(settings, s3_server)
    index_id = campus.materialized_index(
        sql="SELECT n, md5(n::text) AS text FROM generate_series(1, 100000) AS n"
    )["index_id"]
    requests: list[str] = []
    bucket: Any = default_storage
    bucket.connection.meta.client.meta.events.register(
        "before-call.s3", lambda model, **_: requests.append(model.name)
    )
    response = campus.api.get(f"{campus.root}/indexes/{index_id}/download")
    content = downloaded(response)
    assert requests == ["HeadObject"] + ["GetObject"] * -(-len(content) // 2**20)
    assert response["Content-Length"] == str(len(content))
    assert pq.read_table(io.BytesIO(content)).num_rows == 100_000


def test_what_is_not_materialized_is_409_in_the_one_shape(campus: Campus) -> None:
    index_id = campus.index()["index_id"]
    path = f"{campus.root}/indexes/{index_id}/download"
    for accept in ("application/json", "application/vnd.apache.parquet"):
        response = campus.api.get(path, HTTP_ACCEPT=accept)
        assert (response.status_code, body(response)["code"]) == (409, "conflict")


def test_a_client_may_ask_for_the_type_that_it_gets(campus: Campus) -> None:
    path = f"{campus.root}/indexes/{campus.materialized_index()['index_id']}/download"
    for accept in ("application/vnd.apache.parquet", "application/octet-stream", "*/*"):
        response = campus.api.get(path, HTTP_ACCEPT=accept)
        assert response.status_code == 200
        response.close()
    head = campus.api.head(path)
    assert int(head["Content-Length"]) > 0
    head.close()


def test_a_viewer_may_download_and_a_stranger_may_not(
    campus: Campus, viewer: Any, stranger: Any
) -> None:
    path = f"{campus.root}/indexes/{campus.materialized_index()['index_id']}/download"
    response = viewer.get(path)
    assert response.status_code == 200
    response.close()
    assert stranger.get(path).status_code == 401
