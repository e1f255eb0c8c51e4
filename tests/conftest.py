"""A fixed cast: Ada administers, Ana analyses, Vic may look, and a stranger is not signed in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from pytest_django.fixtures import Settings
from rest_framework.test import APIClient

from tests.s3 import s3_server  # noqa: F401 - a fixture for all
from tippers.management.commands.bootstrap import create_roles
from tippers.runs.engine import perform_next


@pytest.fixture(autouse=True)
def _own_storage(settings: Settings, tmp_path: Path) -> None:
    """Every test has an empty object store of its own, and no throttle counts from another."""
    default = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(tmp_path / "storage")},
    }
    settings.STORAGES = {**settings.STORAGES, "default": default}
    # Hashing a password is slow on purpose, and almost every test makes users.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    cache.clear()


def _client(user: User) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client


@pytest.fixture
def ada(db: None) -> User:
    """The administrator."""
    return User.objects.create_superuser("ada", password="correct horse")


@pytest.fixture
def ana(db: None) -> User:
    """An analyst: works on concepts, approves nothing."""
    create_roles()
    user = User.objects.create_user("ana", password="battery staple")
    user.groups.add(Group.objects.get(name="analyst"))
    return user


@pytest.fixture
def vic(db: None) -> User:
    """A viewer."""
    create_roles()
    user = User.objects.create_user("vic", password="trombone lamp")
    user.groups.add(Group.objects.get(name="viewer"))
    return user


@pytest.fixture
def api(ada: User) -> APIClient:
    return _client(ada)


@pytest.fixture
def analyst(ana: User) -> APIClient:
    return _client(ana)


@pytest.fixture
def viewer(vic: User) -> APIClient:
    return _client(vic)


@pytest.fixture
def stranger(db: None) -> APIClient:
    return APIClient()


@pytest.fixture
def perform_all() -> Callable[[], int]:
    """Perform every waiting run in this process; the number performed."""

    def perform() -> int:
        performed = 0
        while perform_next("short") or perform_next("long"):
            performed += 1
        return performed

    return perform


def body(response: Any) -> Any:
    """A response's JSON as a client would see it."""
    return response.json()
