"""An index and its rule on S3, from POST to the rows, with the server failing in between."""

import pytest
from pytest_django.fixtures import Settings

from tests.concepts.conftest import Campus
from tests.s3 import client, proxy_before, use_s3
from tippers import storage

pytestmark = pytest.mark.django_db(transaction=True)


def test_products_live_on_s3(campus: Campus, settings: Settings, s3_server: str) -> None:
    with proxy_before(s3_server) as proxy:
        use_s3(settings, s3_server, endpoint_url=proxy.url)
        index = campus.materialized_index()
        assert index["storage_path"].startswith("s3://bucket/indexes/index_")
        rule = campus.create(
            "rules",
            name="days",
            index_id=index["index_id"],
            sql_query="SELECT mac, count(*) AS days FROM wifi WHERE mac IN (:index_values)"
            " GROUP BY mac ORDER BY mac",
        )
        proxy.refuse(1, "PUT")
        run = campus.materialize("rules", rule["r_id"])
        assert (run["status"], len(proxy.refused)) == ("SUCCESS", 1)
        assert campus.rows("rules", rule["r_id"]) == [
            {"mac": "aa", "days": 2},
            {"mac": "bb", "days": 2},
            {"mac": "cc", "days": 1},
            {"mac": "it's", "days": 1},
        ]
        # Made again, it has another name; the former object stays for who reads it.
        former = campus.get("rules", rule["r_id"])["storage_path"]
        campus.materialize("rules", rule["r_id"])
        current = campus.get("rules", rule["r_id"])["storage_path"]
        assert current != former
        assert {each.key for each in storage.listed("rules/")} == {
            storage.key_of(former),
            storage.key_of(current),
        }
    assert "Uploads" not in client(s3_server).list_multipart_uploads(Bucket="bucket")
