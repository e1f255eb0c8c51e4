"""How programs sign in."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

pytestmark = pytest.mark.django_db


def sign_in(client: APIClient, password: str = "correct horse") -> object:
    return client.post("/auth/login", {"username": "ada", "password": password}).json()


def test_a_password_buys_a_token_that_opens_the_api(stranger: APIClient, ada: User) -> None:
    answer = sign_in(stranger)
    assert isinstance(answer, dict)
    assert set(answer) == {"token", "expiry"}
    assert stranger.get("/concepts").status_code == 401
    stranger.credentials(HTTP_AUTHORIZATION=f"Bearer {answer['token']}")
    assert stranger.get("/concepts").status_code == 200
    assert stranger.post("/auth/logout").status_code == 204
    assert stranger.get("/concepts").status_code == 401


def test_a_wrong_password_is_401(stranger: APIClient, ada: User) -> None:
    answer = stranger.post("/auth/login", {"username": "ada", "password": "wrong"})
    assert answer.status_code == 401
    assert answer.json()["detail"] == "The username or the password is wrong."


def test_what_is_missing_is_named(stranger: APIClient) -> None:
    answer = stranger.post("/auth/login", {"username": "ada"})
    assert answer.status_code == 400
    assert "password" in answer.json()["errors"]


def test_guesses_are_throttled(stranger: APIClient, ada: User) -> None:
    codes = [
        stranger.post("/auth/login", {"username": "ada", "password": str(guess)}).status_code
        for guess in range(25)
    ]
    assert codes[0] == 401
    assert codes[-1] == 429


def test_the_stored_token_is_not_the_token(stranger: APIClient, ada: User) -> None:
    from knox.models import AuthToken

    answer = sign_in(stranger)
    assert isinstance(answer, dict)
    stored = AuthToken.objects.get()
    assert answer["token"] not in (stored.digest, stored.token_key)


@pytest.mark.parametrize("path", ["/admin/login/", "/browse/login/"])
def test_guesses_at_a_form_are_throttled(client: Client, ada: User, path: str) -> None:
    said = {"username": "ada", "password": "wrong"}
    codes = [client.post(path, said).status_code for _ in range(21)]
    assert codes == [200] * 20 + [429]
    assert int(client.post(path, said)["Retry-After"]) <= 61
    assert client.get(path).status_code == 200


def test_the_admins_form_signs_in(client: Client, ada: User) -> None:
    answer = client.post("/admin/login/", {"username": "ada", "password": "correct horse"})
    assert answer.status_code == 302
    assert client.get("/admin/").status_code == 200
