"""`manage.py rotate_keys`: every password under the newest key, and who is left said by name."""

from io import StringIO

import pytest
from cryptography.fernet import Fernet, InvalidToken
from django.core.management import CommandError, call_command
from pytest_django.fixtures import Settings

from connections import rotation
from connections.models import DatabaseConnection
from tests.connections.conftest import NASTY
from tippers.errors import CannotBeDone

pytestmark = pytest.mark.django_db

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


def stored(name: str, password: str = NASTY) -> DatabaseConnection:
    connection = DatabaseConnection(
        name=name, connection_type="postgresql", host="h", port=5432, database="d", user="u"
    )
    connection.set_password(password)
    connection.save()
    return connection


def rotate_keys() -> str:
    said = StringIO()
    call_command("rotate_keys", stdout=said)
    return said.getvalue()


def test_after_a_rotation_the_new_key_alone_opens_every_password(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "BATCH_ROWS", 2)
    settings.FERNET_KEYS = [OLD]
    names = [f"campus {number}" for number in range(5)]
    before = [stored(name, f"{NASTY}{name}") for name in names]
    settings.FERNET_KEYS = [NEW, OLD]
    stored("new already")
    said = rotate_keys()
    assert said.startswith("5 passwords")
    assert "1 were already" in said
    assert NASTY not in said
    settings.FERNET_KEYS = [NEW]
    for connection in before:
        now = DatabaseConnection.objects.get(pk=connection.pk)
        assert now.target().password == f"{NASTY}{now.name}"
        assert now.updated_at == connection.updated_at
        with pytest.raises(InvalidToken):
            Fernet(OLD).decrypt(now.encrypted_password)


def test_a_second_rotation_changes_nothing(settings: Settings) -> None:
    settings.FERNET_KEYS = [OLD]
    stored("campus")
    settings.FERNET_KEYS = [NEW, OLD]
    rotate_keys()
    (once,) = DatabaseConnection.objects.values_list("encrypted_password", flat=True)
    assert rotate_keys().startswith("0 passwords")
    (twice,) = DatabaseConnection.objects.values_list("encrypted_password", flat=True)
    assert once == twice


def test_a_password_that_no_key_opens_is_named_and_the_others_are_rotated(
    settings: Settings,
) -> None:
    settings.FERNET_KEYS = [Fernet.generate_key().decode()]
    lost = stored("lost one")
    settings.FERNET_KEYS = [OLD]
    kept = stored("kept one")
    settings.FERNET_KEYS = [NEW, OLD]
    with pytest.raises(CommandError, match="lost one") as failed:
        rotate_keys()
    assert failed.value.returncode != 0
    assert "kept one" not in str(failed.value)
    settings.FERNET_KEYS = [NEW]
    kept.refresh_from_db()
    assert kept.target().password == NASTY
    lost.refresh_from_db()
    with pytest.raises(CannotBeDone, match="enter the password again"):
        lost.target()


def test_without_a_key_it_says_which_setting_is_missing(settings: Settings) -> None:
    settings.FERNET_KEYS = [OLD]
    stored("campus")
    settings.FERNET_KEYS = []
    with pytest.raises(CommandError, match="TIPPERS_ENCRYPTION_KEYS"):
        rotate_keys()
