"""The embedded broker: a password, durable data, and nothing about it in the process list."""

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tippers.embedded.broker import Broker
from tippers.embedded.home import CannotStart, Home


class Running:
    """A broker without a supervisor."""

    def __init__(self, home: Home) -> None:
        self.broker = Broker(home)
        self.child = self.broker.prepare()
        with (home.logs / "broker.log").open("ab") as log:
            self.process = self.child.process = self.child.spawn(log.fileno())
        self.broker.wait_until_ready(lambda: time.sleep(0.02))

    def stop(self) -> None:
        self.child.ask_to_stop()
        self.process.wait(10)


@pytest.fixture
def running(home: Home) -> Iterator[Running]:
    running = Running(home)
    yield running
    running.stop()


def test_only_the_password_opens_it_and_the_process_list_does_not_show_it(running: Running) -> None:
    port, password = running.broker.port, running.broker.home.secrets().broker_password
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=port, retry=Retry(NoBackoff(), 0)).ping()
    assert redis.Redis.from_url(running.broker.url).ping()
    assert password not in " ".join(running.child.argv)
    configuration = Path(running.child.argv[1])
    assert password in configuration.read_text()
    assert stat.S_IMODE(configuration.stat().st_mode) == 0o600


def test_it_keeps_messages_over_a_restart_and_never_drops_any(home: Home) -> None:
    first = Running(home)
    client = redis.Redis.from_url(first.broker.url)
    client.rpush("short", "hint")
    assert client.info("memory")["maxmemory_policy"] == "noeviction"
    first.stop()
    second = Running(home)
    assert redis.Redis.from_url(second.broker.url).lrange("short", 0, -1) == [b"hint"]
    second.stop()


def test_a_server_on_the_path_comes_first(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Broker(home).prepare().argv[0] == str(tmp_path / "redis-server")
    (tmp_path / "redis-server").unlink()
    assert Broker(home).prepare().argv[0] == str(tmp_path / "valkey-server")


def test_a_missing_wheel_names_the_setting_that_replaces_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(CannotStart, match="set REDIS_URL"):
        Broker(home).prepare()
