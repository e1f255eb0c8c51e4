"""The embedded PostgreSQL: what it holds, who may do what, and how it comes back."""

import os
import signal
import socket
import stat
from pathlib import Path

import psycopg2
import pytest

from tippers.embedded import postgres
from tippers.embedded.home import CannotStart, Home
from tippers.embedded.postgres import Cluster


def ask(url: str, sql: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url, connect_timeout=5)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def test_it_speaks_utc_and_utf8_with_one_order_of_text_everywhere(cluster: Cluster) -> None:
    rows = ask(
        cluster.database_url,
        "SELECT current_setting('TimeZone'), current_setting('server_encoding'),"
        " current_setting('fsync'), upper('straße é'), current_user, current_database()",
    )
    assert rows == [("UTC", "UTF8", "on", "STRAßE É", "tippers_services", "tippers_services")]


def test_nobody_enters_without_the_password(cluster: Cluster) -> None:
    with pytest.raises(psycopg2.OperationalError, match="no password supplied"):
        psycopg2.connect(host="127.0.0.1", port=cluster.port, user="postgres", dbname="postgres")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(
            host="127.0.0.1", port=cluster.port, user="postgres", password="x", dbname="postgres"
        )


def test_it_listens_on_loopback_alone(cluster: Cluster) -> None:
    assert ask(cluster.superuser_url, "SHOW listen_addresses") == [("127.0.0.1",)]
    assert ask(cluster.superuser_url, "SHOW unix_socket_directories") == [("",)]


def test_the_reader_reads_every_table_of_the_owner_also_later_ones(cluster: Cluster) -> None:
    ask(cluster.tippers_db_url, "CREATE TABLE later AS SELECT 1 AS one")
    ask(cluster.tippers_db_url, "CREATE VIEW seen AS SELECT * FROM later")
    ask(cluster.tippers_db_url, "CREATE SCHEMA other; CREATE TABLE other.far AS SELECT 2 AS two")
    assert ask(cluster.tippers_reader_url, "SELECT one, two FROM seen, other.far") == [(1, 2)]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO kept VALUES (2)",
        "BEGIN READ WRITE; INSERT INTO kept VALUES (2); COMMIT",
        "SET default_transaction_read_only = off; DELETE FROM kept",
        "SET default_transaction_read_only = off; CREATE TABLE mine (one int)",
        "SET default_transaction_read_only = off; DROP TABLE kept",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT rolpassword FROM pg_authid",
        "COPY (SELECT 1) TO PROGRAM 'true'",
    ],
)
def test_the_reader_changes_nothing_even_when_it_asks_for_it(cluster: Cluster, sql: str) -> None:
    ask(cluster.tippers_db_url, "CREATE TABLE IF NOT EXISTS kept (one int)")
    with pytest.raises(
        (psycopg2.errors.InsufficientPrivilege, psycopg2.errors.ReadOnlySqlTransaction)
    ):
        ask(cluster.tippers_reader_url, sql)


@pytest.mark.parametrize("database", ["tippers_services", "postgres", "template1"])
def test_the_reader_enters_no_other_database(cluster: Cluster, database: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        ask(cluster.url(database, postgres.READER), "SELECT 1")


def test_data_and_port_survive_a_restart(cluster: Cluster) -> None:
    ask(cluster.tippers_db_url, "CREATE TABLE survives AS SELECT 7 AS seven")
    cluster.stop()
    again = Cluster(cluster.home, cluster.port)
    again.start()
    try:
        assert again.port == cluster.port
        assert ask(again.tippers_reader_url, "SELECT seven FROM survives") == [(7,)]
    finally:
        again.stop()


def test_it_moves_when_somebody_else_has_its_port(home: Home) -> None:
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", 0))
        somebody.listen()
        taken = somebody.getsockname()[1]
        assert Cluster(home, taken).port != taken


def test_it_recovers_what_was_committed_before_a_kill(cluster: Cluster) -> None:
    ask(cluster.tippers_db_url, "CREATE TABLE committed AS SELECT generate_series(1, 1000) AS n")
    assert cluster.process is not None
    os.killpg(cluster.process.pid, signal.SIGKILL)
    cluster.process.wait()
    assert (cluster.data / "postmaster.pid").exists()
    cluster.start()
    assert ask(cluster.tippers_db_url, "SELECT sum(n) FROM committed") == [(500500,)]


def test_a_stale_pid_that_another_process_has_now_is_no_obstacle(cluster: Cluster) -> None:
    cluster.stop()
    pid_file = cluster.data / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{cluster.data}\n")
    if cluster.account:
        os.chown(pid_file, cluster.account.uid, cluster.account.gid)
    cluster.start()
    assert ask(cluster.database_url, "SELECT 1") == [(1,)]


def test_a_postgres_that_a_killed_supervisor_left_is_stopped_first(cluster: Cluster) -> None:
    orphan, cluster.process = cluster.process, None
    assert orphan is not None
    ask(cluster.tippers_db_url, "CREATE TABLE left_behind AS SELECT 1 AS one")
    cluster.start()
    assert orphan.wait(10) == 0
    assert ask(cluster.tippers_reader_url, "SELECT one FROM left_behind") == [(1,)]


def test_the_data_are_private_and_no_parent_folder_was_opened(cluster: Cluster) -> None:
    assert stat.S_IMODE(cluster.home.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(cluster.home.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(cluster.data.stat().st_mode) == 0o700
    assert not (cluster.folder / "password").exists()
    assert not (cluster.folder / "data.new").exists()
    if cluster.account:
        assert cluster.data.stat().st_uid == cluster.account.uid != 0
        assert cluster.folder.stat().st_uid == 0


def test_a_full_disk_is_told_with_its_folder(
    scratch_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tippers.embedded.home.FIRST_START_BYTES", 2**62)
    with pytest.raises(CannotStart, match="The disk is full"):
        scratch_cluster.start()
    assert not scratch_cluster.data.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps clusters outside the home")
def test_a_moved_home_keeps_its_database_and_a_copied_one_is_refused(
    scratch_cluster: Cluster, home: Home, tmp_path: Path
) -> None:
    scratch_cluster._make_folder()
    moved = Home(home.path.rename(tmp_path / "moved"))
    assert Cluster(moved).folder == scratch_cluster.folder
    Cluster(moved)._make_folder()
    copy = Home(tmp_path / "copy")
    copy.prepare()
    (copy.path / "secrets.json").write_text((moved.path / "secrets.json").read_text())
    with pytest.raises(CannotStart, match="is a copy of"):
        Cluster(copy)._make_folder()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps clusters outside the home")
def test_a_deleted_home_leaves_a_cluster_that_is_named(
    scratch_cluster: Cluster, home: Home
) -> None:
    scratch_cluster._make_folder()
    (home.path / "secrets.json").unlink()
    assert Cluster(home).abandoned() == [scratch_cluster.folder]


def test_a_missing_wheel_names_the_settings_that_replace_it(
    scratch_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(CannotStart, match="set DATABASE_URL and TIPPERS_DB_URL"):
        scratch_cluster.start()


def test_a_user_without_a_name_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(CannotStart, match="has no entry in the system's user list"):
        postgres._require_a_passwd_entry()
