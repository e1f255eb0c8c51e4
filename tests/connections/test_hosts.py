"""Connections go only where the operator lets them."""

import pytest
from pytest_django.fixtures import Settings

from connections import query
from connections.hosts import HostRefused, admitted
from connections.query import Target


@pytest.fixture(autouse=True)
def _public(settings: Settings) -> None:
    settings.LOCAL_MODE = False
    settings.ALLOWED_DB_NETWORKS = []
    settings.TIPPERS_DB_URL = ""
    settings.DATABASE_URL = "postgresql://u:p@203.0.114.7:5432/own"
    settings.REDIS_URL = "redis://203.0.114.8/0"


REFUSED = {
    "127.0.0.1": "this machine",
    "localhost": "this machine",
    "::1": "this machine",
    "::ffff:127.0.0.1": "this machine",
    "2130706433": "this machine",
    "0.0.0.0": "",
    "169.254.169.254": "link-local",
    "fe80::1": "link-local",
    "10.1.2.3": "private",
    "192.168.0.1": "private",
    "172.16.5.5": "private",
    "fd00::1": "private",
    "224.0.0.1": "no address",
    "203.0.114.7": "our own",
    "/var/run/postgresql": "name or an address",
    " ": "name or an address",
}


@pytest.mark.parametrize(("host", "words"), REFUSED.items())
def test_addresses_within_are_refused(host: str, words: str) -> None:
    with pytest.raises(HostRefused) as refused:
        admitted(host, 5432, "d")
    assert words in refused.value.detail
    assert refused.value.field == "host"


def test_a_public_address_is_admitted() -> None:
    assert admitted("203.0.114.9", 5432, "d") == ["203.0.114.9"]
    assert admitted("203.0.114.7", 5433, "d") == ["203.0.114.7"]


def test_the_operator_admits_networks(settings: Settings) -> None:
    settings.ALLOWED_DB_NETWORKS = ["10.0.0.0/8", "127.0.0.1/32"]
    assert admitted("10.1.2.3", 5432, "d") == ["10.1.2.3"]
    assert admitted("::ffff:127.0.0.1", 5432, "d") == ["::ffff:7f00:1"]
    with pytest.raises(HostRefused):
        admitted("192.168.0.1", 5432, "d")


def test_local_mode_admits_this_machine_and_its_network(settings: Settings) -> None:
    settings.LOCAL_MODE = True
    for host in ("127.0.0.1", "10.1.2.3", "::1"):
        assert admitted(host, 5432, "d") == [host]
    with pytest.raises(HostRefused):
        admitted("169.254.169.254", 80, "d")


def test_the_sessions_database_is_admitted_and_no_other_there(settings: Settings) -> None:
    settings.TIPPERS_DB_URL = "postgresql://u:p@127.0.0.1:6000/tippers"
    assert admitted("127.0.0.1", 6000, "tippers") == ["127.0.0.1"]
    for port, database in ((6000, "own"), (5432, "tippers")):
        with pytest.raises(HostRefused):
            admitted("127.0.0.1", port, database)


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_every_way_to_ask_asks_the_guard_first(dialect: str) -> None:
    target = Target(dialect, "127.0.0.1", 9, "d", "u", "p")
    with pytest.raises(HostRefused):
        query.fetch(target, "SELECT 1")
    with pytest.raises(HostRefused), query.stream(target, "SELECT 1"):
        pass
    found = query.test(target)
    assert found["status"] == "failed"
    assert "ALLOWED_DB_NETWORKS" in found["message"]
