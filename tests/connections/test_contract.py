"""Database connections over REST."""

from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.test import Client
from pytest_django.fixtures import Settings
from rest_framework.test import APIClient

from connections.models import DatabaseConnection
from connections.query import Target
from tests.connections.conftest import NASTY
from tippers.errors import CannotBeDone

pytestmark = pytest.mark.django_db

BODY = {
    "name": "campus",
    "connection_type": "postgresql",
    "host": "db.example.com",
    "port": 5432,
    "database": "tippers",
    "user": "reader",
    "password": NASTY,
}
SHOWN = [name for name in BODY if name != "password"]


def created(api: APIClient, **changes: Any) -> dict[str, Any]:
    answer = api.post("/database-connections", {**BODY, **changes})
    assert answer.status_code == 201, answer.content
    found: dict[str, Any] = answer.json()
    return found


def test_a_connection_is_created_and_shown_without_its_password(api: APIClient) -> None:
    found = created(api)
    assert list(found) == ["conn_id", *SHOWN, "created_at", "updated_at"]
    assert {name: found[name] for name in SHOWN} == {name: BODY[name] for name in SHOWN}
    again = api.get(f"/database-connections/{found['conn_id']}")
    assert again.json() == found
    listed = api.get("/database-connections")
    assert (listed.json(), listed["X-Total-Count"]) == ([found], "1")


def test_the_password_is_kept_encrypted_and_comes_back_whole(api: APIClient) -> None:
    stored = DatabaseConnection.objects.get(pk=created(api)["conn_id"])
    assert NASTY not in stored.encrypted_password
    assert stored.target() == Target(
        "postgresql", "db.example.com", 5432, "tippers", "reader", NASTY
    )


@pytest.mark.parametrize("path", ["/database-connections", "/connections", "/connections/"])
def test_both_names_lead_to_the_same(api: APIClient, path: str) -> None:
    conn_id = created(api)["conn_id"]
    assert [each["conn_id"] for each in api.get(path).json()] == [conn_id]
    assert api.get(f"{path.rstrip('/')}/{conn_id}").status_code == 200


def test_a_patch_changes_what_it_names(api: APIClient) -> None:
    found = created(api)
    path = f"/database-connections/{found['conn_id']}"
    answer = api.patch(path, {"host": "new.example.com", "port": 5433})
    assert answer.status_code == 200
    changed = answer.json()
    assert changed["updated_at"] > found["updated_at"]
    expected = {**found, "host": "new.example.com", "port": 5433}
    assert {**changed, "updated_at": found["updated_at"]} == expected
    api.patch(path, {"password": "another"})
    assert DatabaseConnection.objects.get().target().password == "another"


def test_a_put_of_what_was_read_keeps_the_password(api: APIClient) -> None:
    conn_id = created(api)["conn_id"]
    body = {**{name: BODY[name] for name in SHOWN}, "name": "renamed"}
    answer = api.put(f"/connections/{conn_id}", body)
    assert (answer.status_code, answer.json()["name"]) == (200, "renamed")
    assert DatabaseConnection.objects.get().target().password == NASTY
    assert api.put(f"/connections/{conn_id}", {"name": "x"}).status_code == 400


def test_a_connection_is_deleted(api: APIClient) -> None:
    path = f"/database-connections/{created(api)['conn_id']}"
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"connection_type": "oracle"}, "connection_type"),
        ({"host": "/var/run/postgresql"}, "host"),
        ({"host": "h host=evil"}, "host"),
        ({"host": "h:5432/d"}, "host"),
        ({"port": 0}, "port"),
        ({"port": 70000}, "port"),
        ({"port": "x"}, "port"),
        ({"password": None}, "password"),
        ({"passwort": "x"}, "passwort"),
        ({"encrypted_password": "x"}, "encrypted_password"),
        ({"user": "a\0b"}, "user"),
    ],
)
def test_bad_input_is_refused_by_field(api: APIClient, change: dict[str, Any], field: str) -> None:
    answer = api.post("/database-connections", {**BODY, **change})
    assert answer.status_code == 400
    assert field in answer.json()["errors"]
    assert NASTY not in answer.content.decode()
    assert not DatabaseConnection.objects.exists()


@pytest.mark.parametrize("field", list(BODY))
def test_every_field_is_required(api: APIClient, field: str) -> None:
    answer = api.post("/database-connections", {k: v for k, v in BODY.items() if k != field})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])


def test_a_name_is_taken_once(api: APIClient) -> None:
    created(api)
    answer = api.post("/database-connections", BODY)
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["name"]


def test_the_test_of_a_connection_that_works(api: APIClient, reader: Target) -> None:
    place = {name: getattr(reader, name) for name in ("host", "port", "database", "user")}
    conn_id = created(api, **place)["conn_id"]
    answer = api.post(f"/database-connections/{conn_id}/test")
    assert answer.status_code == 200
    found = answer.json()
    assert (found["status"], found["message"]) == ("success", "Connection successful")
    assert set(found) == {"status", "message", "latency_ms", "server_version", "warnings"}


def test_the_test_of_a_connection_that_does_not(api: APIClient, reader: Target) -> None:
    place = {"host": reader.host, "port": 9}
    conn_id = created(api, **place)["conn_id"]
    answer = api.post(f"/connections/{conn_id}/test")
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert "does not answer" in answer.json()["message"]
    assert NASTY not in answer.content.decode()


def test_who_may_do_what(
    api: APIClient, analyst: APIClient, viewer: APIClient, stranger: APIClient
) -> None:
    path = f"/database-connections/{created(api)['conn_id']}"
    for client in (analyst, viewer):
        assert client.get(path).status_code == 200
        assert client.post("/database-connections", {**BODY, "name": "b"}).status_code == 403
        assert client.patch(path, {"host": "evil.example.com"}).status_code == 403
        assert client.delete(path).status_code == 403
        assert client.post(f"{path}/test").status_code == 200
    assert stranger.get(path).status_code == 401


def test_tests_are_throttled(viewer: APIClient, api: APIClient) -> None:
    path = f"/database-connections/{created(api, host='/x'.strip('/'))['conn_id']}/test"
    answers = [viewer.post(path).status_code for _ in range(31)]
    assert answers[-1] == 429
    assert set(answers[:30]) == {200}


def test_the_admin_never_shows_a_password(api: APIClient, ada: Any, client: Client) -> None:
    conn_id = created(api)["conn_id"]
    client.force_login(ada)
    for page in ("", f"{conn_id}/change/"):
        shown = client.get(f"/admin/connections/databaseconnection/{page}").content.decode()
        assert "campus" in shown
        assert "password" not in shown.lower().replace("change password", "").replace(
            "password_change", ""
        )


def test_a_newer_key_opens_what_an_older_one_closed(api: APIClient, settings: Settings) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.FERNET_KEYS = [old]
    conn_id = created(api)["conn_id"]
    settings.FERNET_KEYS = [new, old]
    stored = DatabaseConnection.objects.get(pk=conn_id)
    assert stored.target().password == NASTY
    settings.FERNET_KEYS = [new]
    with pytest.raises(CannotBeDone, match="enter the password again"):
        stored.target()
    answer = api.post(f"/database-connections/{conn_id}/test")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


def test_registering_follows_where_the_url_leads() -> None:
    first = DatabaseConnection.register(name="tippers", url="postgresql://r:one@127.0.0.1:5001/t")
    again = DatabaseConnection.register(name="tippers", url="postgresql://r:two@127.0.0.1:5002/t")
    assert first.pk == again.pk
    assert again.target() == Target("postgresql", "127.0.0.1", 5002, "t", "r", "two")
