"""The state folder: private, held by one, and honest about who runs it."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tippers.embedded.home import CannotStart, Home, Stack, free_port, read_stack, require_space

STACK = Stack(
    pid=1,
    web_url="http://127.0.0.1:8123",
    ready=True,
    postgres_port=5,
    broker_port=6,
    database_url="postgresql://a:b@127.0.0.1:5/c",
    tippers_db_url="",
    tippers_reader_url="",
    redis_url="",
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_and_its_secrets_are_private(tmp_path: Path) -> None:
    home = Home(tmp_path / "a" / "home")
    home.prepare()
    home.secrets()
    home.write_stack(STACK)
    assert mode(home.path) == 0o700
    assert mode(home.path / "secrets.json") == 0o600
    assert mode(home.path / "stack.json") == 0o600


def test_secrets_are_made_once_and_differ_between_homes(tmp_path: Path) -> None:
    one, other = Home(tmp_path / "one"), Home(tmp_path / "other")
    one.prepare()
    other.prepare()
    first = one.secrets()
    assert Home(one.path).secrets() == first
    assert other.secrets().secret_key != first.secret_key
    assert first.secret_key not in repr(first)


def test_damaged_secrets_are_not_replaced_by_new_ones(home: Home) -> None:
    (home.path / "secrets.json").write_text("{")
    with pytest.raises(CannotStart, match="restore it from a backup"):
        home.secrets()
    assert (home.path / "secrets.json").read_text() == "{"


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir(mode=0o755)
    (tmp_path / "letters" / "to_grandma.txt").write_text("dear")
    with pytest.raises(CannotStart, match="files of something else"):
        Home(tmp_path / "letters").prepare()
    assert mode(tmp_path / "letters") == 0o755


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(CannotStart, match="a file is in its place"):
        Home(tmp_path / "home").prepare()


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tippers.embedded.home.FIRST_START_BYTES", 2**62)
    with pytest.raises(CannotStart, match=r"The disk is full: a first start needs \d+ MB"):
        require_space(tmp_path)


def test_a_second_holder_is_told_the_address_of_the_first(home: Home) -> None:
    home.secrets()
    home.write_stack(STACK)
    with (
        home.hold(),
        pytest.raises(CannotStart, match=r"already runs from .* at http://127\.0\.0\.1:8123"),
        Home(home.path).hold(),
    ):
        pass


def test_a_stack_counts_as_running_only_while_its_supervisor_lives(home: Home) -> None:
    home.secrets()
    home.write_stack(STACK)
    hold = (
        "import sys, time; from pathlib import Path; from tippers.embedded.home import Home\n"
        "with Home(Path(sys.argv[1])).hold(): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(home.path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    running = read_stack(home.path)
    holder.kill()
    holder.wait()
    stopped = read_stack(home.path)
    assert running is not None
    assert (running.running, running.ready) == (True, True)
    assert stopped is not None
    assert (stopped.running, stopped.ready) == (False, False)
    assert stopped.database_url == STACK.database_url


def test_a_home_without_a_start_has_no_stack(tmp_path: Path) -> None:
    assert read_stack(tmp_path / "nowhere") is None


def test_the_preferred_port_is_given_while_it_is_free() -> None:
    port = free_port()
    assert free_port(port) == port


def test_asking_who_runs_does_not_keep_a_start_out(home: Home) -> None:
    """A reader takes the lock for an instant; the start that falls into it waits that long."""
    import fcntl

    with (home.path / "lock").open("a+") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        pid = os.fork()
        if pid == 0:
            time.sleep(0.2)
            os._exit(0)
        reader.close()
        with home.hold():
            pass
        os.waitpid(pid, 0)


def test_settings_can_read_it_without_importing_more_than_the_standard_library() -> None:
    said = subprocess.run(
        [sys.executable, "-S", "-c", "import tippers.embedded.home"],
        capture_output=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
