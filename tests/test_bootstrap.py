"""The first start and every later one."""

from io import StringIO

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from pytest_django.fixtures import Settings

from connections.models import DatabaseConnection

pytestmark = pytest.mark.django_db(transaction=True)


def bootstrap() -> str:
    said = StringIO()
    call_command("bootstrap", stdout=said)
    return said.getvalue()


def test_the_made_up_password_is_printed_once_and_works() -> None:
    said = bootstrap()
    password = said.split("password '")[1].split("'")[0]
    assert User.objects.get(username="admin").check_password(password)
    assert bootstrap() == ""


def test_a_given_password_is_used_and_not_printed(settings: Settings) -> None:
    settings.ADMIN_USER, settings.ADMIN_PASSWORD = "root", "given by the operator"
    assert bootstrap() == ""
    assert User.objects.get(username="root").check_password("given by the operator")


def test_the_embedded_sessions_become_the_connection_tippers(settings: Settings) -> None:
    settings.TIPPERS_READER_URL = "postgresql://reader:p%40ss@127.0.0.1:5001/tippers"
    bootstrap()
    settings.TIPPERS_READER_URL = "postgresql://reader:p%40ss@127.0.0.1:5002/tippers"
    bootstrap()
    connection = DatabaseConnection.objects.get(name="tippers")
    assert (connection.user, connection.port) == ("reader", 5002)
    assert connection.target().password == "p@ss"


def test_the_roles_grow_by_what_they_may_do() -> None:
    bootstrap()
    may = {
        group.name: set(group.permissions.values_list("codename", flat=True))
        for group in Group.objects.all()
    }
    assert may["viewer"] < may["analyst"] < may["admin"]
    assert may["reviewer"] - may["viewer"] == {"approve_labelingfunction"}
    assert "approve_labelingfunction" not in may["analyst"]
    assert "add_databaseconnection" not in may["analyst"]
