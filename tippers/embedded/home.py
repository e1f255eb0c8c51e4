"""The state folder of one machine's stack: its secrets, its addresses, and who is running it.

`settings.py` reads it on every start of every process, so it imports the standard library only.
"""

import base64
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

CHECKOUT = Path(__file__).resolve().parents[2]
FIRST_START_BYTES = 300 * 2**20  # an empty cluster with its first WAL segments takes about 100 MB


class CannotStart(Exception):
    """The stack cannot be started; the message is the whole story, told in one sentence."""


def explain(error: OSError) -> str:
    """One sentence for an error of the operating system while starting."""
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full{where}: free some space, or set TIPPERS_HOME to another disk."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"This user may not write{where}: set TIPPERS_HOME to a folder that belongs to you, "
            "or start as the folder's owner."
        )
    return f"The operating system refused{where}: {error.strerror or error}."


@dataclass(frozen=True)
class Secrets:
    """What a home generates at its first start and keeps for good."""

    home_id: str
    secret_key: str = field(repr=False)
    fernet_key: str = field(repr=False)
    superuser_password: str = field(repr=False)
    services_password: str = field(repr=False)
    owner_password: str = field(repr=False)
    reader_password: str = field(repr=False)
    broker_password: str = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        made = {each.name: secrets.token_urlsafe(24) for each in fields(cls)}
        made["home_id"] = secrets.token_hex(8)
        made["secret_key"] = secrets.token_urlsafe(48)
        made["fernet_key"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        return cls(**made)


@dataclass(frozen=True)
class Stack:
    """Where the parts of a home's stack answer; of the running one, else of the last one.

    The address of a part that is not embedded, because a variable replaces it, is empty.
    """

    pid: int
    web_url: str
    ready: bool
    postgres_port: int | None
    broker_port: int | None
    database_url: str = field(repr=False)
    tippers_db_url: str = field(repr=False)  # the owner of the sessions: may load them
    tippers_reader_url: str = field(repr=False)  # may only read them
    redis_url: str = field(repr=False)
    # These two are kept in the secrets, and added when a stack is read.
    secret_key: str = field(default="", repr=False)
    tippers_encryption_keys: str = field(default="", repr=False)
    running: bool = False


def home_path() -> Path:
    """The folder that the environment names, else `.tippers` in the checkout."""
    named = os.environ.get("TIPPERS_HOME", "")
    return Path(named).expanduser().absolute() if named else CHECKOUT / ".tippers"


def free_port(preferred: int | None = None) -> int:
    """The preferred port when nobody has it, else one that the system gives."""
    for port in (preferred, 0):
        if port is None:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise CannotStart("No TCP port is free on 127.0.0.1.")


def require_space(folder: Path) -> None:
    """Say so before a first start fills the disk and fails in the middle."""
    free = shutil.disk_usage(folder).free
    if free < FIRST_START_BYTES:
        raise CannotStart(
            f"The disk is full: a first start needs {FIRST_START_BYTES >> 20} MB at {folder}, where "
            f"{free >> 20} MB are free."
        )


def read_stack(path: Path) -> Stack | None:
    """The running or last stack of a home; None when none was ever started there."""
    return Home(path).stack()


class Home:
    """One state folder. Reading works for anybody who may; `prepare` and `hold` are for who runs it."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.logs = self.path / "logs"

    def prepare(self) -> None:
        """Make the folder, or see that the one there is ours and private."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = self.path.stat()
        except (FileExistsError, NotADirectoryError) as error:
            raise CannotStart(
                f"The state folder {self.path} cannot be made because a file is in its place: "
                "set TIPPERS_HOME to another folder."
            ) from error
        except OSError as error:
            raise CannotStart(explain(error)) from error
        if status.st_uid != os.geteuid():
            raise CannotStart(
                f"The state folder {self.path} belongs to another user (uid {status.st_uid}): "
                "start as that user, or set TIPPERS_HOME to a folder of your own."
            )
        if status.st_mode & 0o077:
            if any(self.path.iterdir()) and not (self.path / "lock").exists():
                raise CannotStart(
                    f"The state folder {self.path} holds files of something else and is open to "
                    "other users: set TIPPERS_HOME to a new or empty folder."
                )
            self.path.chmod(0o700)
        self.logs.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be the only one that runs this home, for as long as the block lasts or the process lives."""
        with (self.path / "lock").open("a+") as lock:
            deadline = time.monotonic() + 1  # a reader that asks who runs holds it for an instant
            while not _try_lock(lock.fileno(), fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    stack = self.stack()
                    where = f" at {stack.web_url}" if stack and stack.web_url else ""
                    raise CannotStart(
                        f"Tippers Services already runs from {self.path}{where}: use that one, stop "
                        "it first, or set TIPPERS_HOME to another folder."
                    )
                time.sleep(0.05)
            yield

    def is_held(self) -> bool:
        """Whether a supervisor runs this home. A lock ends with its process; a pid may be reused."""
        try:
            with (self.path / "lock").open() as lock:
                return not _try_lock(lock.fileno(), fcntl.LOCK_SH)
        except OSError:
            return False

    def secrets(self) -> Secrets:
        """The home's secrets, generated when it has none yet."""
        path = self.path / "secrets.json"
        if not path.exists():
            _write_private(path, asdict(Secrets.generate()), replace=False)
        return self._read_secrets()

    def _read_secrets(self) -> Secrets:
        path = self.path / "secrets.json"
        try:
            return Secrets(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise CannotStart(
                f"{path} cannot be read as this version's secrets: restore it from a backup; "
                "without it the stored passwords and the embedded database cannot be opened."
            ) from error

    def stack(self) -> Stack | None:
        """See `read_stack`."""
        try:
            values = json.loads((self.path / "stack.json").read_text())
            kept = self._read_secrets()
            running = self.is_held()
            return Stack(
                **values
                | {
                    "ready": values["ready"] and running,
                    "running": running,
                    "secret_key": kept.secret_key,
                    "tippers_encryption_keys": kept.fernet_key,
                }
            )
        except (OSError, ValueError, TypeError, KeyError, CannotStart):
            return None  # never started, not readable by this user, or of another version

    def write_stack(self, stack: Stack) -> None:
        values = asdict(stack)
        for name in ("secret_key", "tippers_encryption_keys", "running"):
            del values[name]
        _write_private(self.path / "stack.json", values, replace=True)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_private(path: Path, values: dict[str, Any], *, replace: bool) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(values, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                return  # somebody else was first, and theirs counts
    finally:
        temporary.unlink(missing_ok=True)
