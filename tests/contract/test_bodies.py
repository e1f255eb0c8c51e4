"""Bodies that are no JSON, or too much of it, are refused before anything else sees them."""

import json

import pytest
from pytest_django.fixtures import Settings
from rest_framework.test import APIClient

from tests.contract.test_every_path import in_the_one_shape

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{",
        b'{"name": "\xff"}',
        b'{"name": NaN}',
        b'{"name": Infinity}',
        b'{"name": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xef\xbb\xbf{}",
    ],
    ids=["empty", "open", "bytes", "NaN", "Infinity", "digits", "arrays", "objects", "BOM"],
)
def test_what_is_no_json_is_400(api: APIClient, sent: bytes) -> None:
    answer = api.generic(
        "POST",
        "/concepts",
        sent,  # type: ignore[arg-type]  # the stubs know texts only
        content_type="application/json",
    )
    assert answer.status_code == 400
    assert in_the_one_shape(answer)


def test_a_body_beyond_the_limit_is_413_and_one_within_is_read(
    api: APIClient, settings: Settings
) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    for length, status in ((1000, 201), (1001, 413)):
        said = {"name": str(length), "description": ""}
        said["description"] = "x" * (length - len(json.dumps(said)))
        answer = api.generic("POST", "/concepts", json.dumps(said), "application/json")
        assert answer.status_code == status
    assert answer.json()["code"] == "too_large"
    assert in_the_one_shape(answer)


def test_another_kind_of_body_is_415(api: APIClient) -> None:
    answer = api.generic("POST", "/concepts", "name=x", "application/x-www-form-urlencoded")
    assert answer.status_code == 415
    assert in_the_one_shape(answer)


@pytest.mark.parametrize("path", ["/concepts", "/spaces", "/dagster/health", "/auth/login"])
def test_a_method_that_is_not_there_is_405(api: APIClient, path: str) -> None:
    answer = api.generic("PATCH", path, "{}", content_type="application/json")
    assert answer.status_code == 405
    assert in_the_one_shape(answer)


def test_an_error_repeats_what_was_sent_only_as_far_as_it_can_be_sent(api: APIClient) -> None:
    answer = api.generic("POST", "/concepts", r'{"half \ud800": 1}', "application/json")
    assert answer.status_code == 400
    assert "half ?" in answer.json()["errors"]
