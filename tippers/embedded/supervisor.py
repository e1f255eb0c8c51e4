"""The whole stack on one machine: PostgreSQL, broker, web, workers and scheduler, kept running.

Order: PostgreSQL and broker, then `manage.py bootstrap`, then the rest. The children find one
another through the home's `stack.json`, as every other command does.
"""

import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from tippers.cores import cores
from tippers.embedded.broker import Broker
from tippers.embedded.children import Child, Children, Stopped
from tippers.embedded.home import (
    CHECKOUT,
    CannotStart,
    Home,
    Stack,
    explain,
    home_path,
    require_space,
)
from tippers.embedded.postgres import Cluster
from tippers.embedded.workers import workers

FIRST_PORT, LAST_PORT = 8000, 8099
READY_SECONDS = 180.0  # a slow machine imports for half a minute; more than this is a fault
SHOWN_FOR_ALL_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - shown, not bound


@dataclass(frozen=True)
class Options:
    """What the environment asks of the supervisor itself."""

    host: str
    port: int | None  # None: the next free one
    long_slots: int
    reload: bool
    database_given: bool
    sessions_given: bool
    broker_given: bool

    @classmethod
    def from_environment(cls) -> Self:
        return cls(
            host=os.environ.get("HOST") or "127.0.0.1",
            port=_whole_number("PORT", least=0, most=65535),
            long_slots=_whole_number("TIPPERS_MAX_CONCURRENT", least=1) or cores(),
            reload=os.environ.get("RELOAD", "").lower() in ("1", "on", "true", "yes"),
            database_given=bool(os.environ.get("DATABASE_URL")),
            sessions_given=bool(os.environ.get("TIPPERS_DB_URL")),
            broker_given=bool(os.environ.get("REDIS_URL")),
        )


def run(*, quiet: bool = False) -> int:
    """Run the stack until it is asked to stop; the exit status. `quiet` leaves lines to the logs."""
    try:
        home = Home(home_path())
        home.prepare()
        with home.hold():
            Supervisor(home, Options.from_environment(), quiet=quiet).run()
    except CannotStart as error:
        sys.stderr.write(f"Cannot start: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"Cannot start: {explain(error)}\n")
        return 1
    return 0


def say(line: str) -> None:
    """Print a line; a reader that has gone away must not take the stack with it."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for the rest of the process


class Supervisor:
    """Starts the parts of one home, watches them, and stops them."""

    def __init__(self, home: Home, options: Options, *, quiet: bool) -> None:
        self.home = home
        self.options = options
        self.children = Children(home.logs, say, quiet=quiet)
        self._environment = os.environ | {
            "TIPPERS_HOME": str(home.path),
            "TIPPERS_MAX_CONCURRENT": str(options.long_slots),
            "PYTHONUNBUFFERED": "1",
        }

    def run(self) -> None:
        """Start, say so, and watch until SIGTERM or SIGINT; everything has ended on return."""
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup make serve`
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._ask_to_stop) for number in numbers}
        try:
            with ExitStack() as stack:
                stack.callback(self.children.stop)
                self._start(stack)
                self._watch()
        except Stopped:
            say("Stopped.")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self.children.stop_asked = True

    def _start(self, resources: ExitStack) -> None:
        last = self.home.stack()
        if last is None:
            require_space(self.home.path)
        self.home.secrets()  # exist before the first child asks for them
        listener = resources.enter_context(listen(self.options.host, self.options.port))
        address = web_url(self.options.host, listener)
        cluster, broker = self._foundations(last)
        product = None if self.options.database_given else cluster
        sessions = None if self.options.sessions_given else cluster
        last_ports = (last.postgres_port, last.broker_port) if last else (None, None)
        stack = Stack(
            pid=os.getpid(),
            web_url=address,
            ready=False,
            postgres_port=cluster.port if cluster else last_ports[0],
            broker_port=broker.port if broker else last_ports[1],
            database_url=product.database_url if product else "",
            tippers_db_url=sessions.tippers_db_url if sessions else "",
            tippers_reader_url=sessions.tippers_reader_url if sessions else "",
            redis_url=broker.url if broker else "",
        )
        self.home.write_stack(stack)
        self._start_foundations(cluster, broker)
        say("Preparing the database")
        self.children.run_to_end(self._command("bootstrap", "manage.py", "bootstrap", raw=True))
        say("Starting the web server, the workers and the scheduler")
        for child in self._services(listener):
            self.children.start(child)
        self._wait_until_ready(listener)
        self.children.patient = True
        self.home.write_stack(replace(stack, ready=True))
        say(f"Ready: {address}")

    def _foundations(self, last: Stack | None) -> tuple[Cluster | None, Broker | None]:
        needs_cluster = not (self.options.database_given and self.options.sessions_given)
        cluster = (
            Cluster(self.home, last.postgres_port if last else None) if needs_cluster else None
        )
        if self.options.broker_given:
            return cluster, None
        return cluster, Broker(self.home, last.broker_port if last else None)

    def _start_foundations(self, cluster: Cluster | None, broker: Broker | None) -> None:
        for folder in cluster.abandoned() if cluster else ():
            say(f"{folder} holds the database of a deleted {self.home.path}: delete it if unneeded")
        foundations = [part.prepare() for part in (broker, cluster) if part]
        for child in foundations:
            say(f"Starting the embedded {child.name}")
            self.children.start(child)
        if broker:
            broker.wait_until_ready(self._idle)
        if cluster:
            cluster.wait_until_ready(self._idle)
            cluster.provision()

    def _services(self, listener: socket.socket) -> list[Child]:
        descriptor = listener.fileno()
        web = self._command(
            "web",
            *("-m", "gunicorn", "tippers.wsgi", "--bind", f"fd://{descriptor}"),
            *("--worker-class", "gthread", "--workers", "2", "--threads", "8"),
            *("--graceful-timeout", "5", "--timeout", "60", "--no-control-socket"),
            # Loaded once and forked: half the processor time and memory of two loads.
            "--reload" if self.options.reload else "--preload",
        )
        web.pass_fds = (descriptor,)
        web.death_signal = signal.SIGTERM  # its workers notice that it went
        takers = [
            self._command(each.name, *each.arguments()) for each in workers(self.options.long_slots)
        ]
        beat = self._command(
            "beat", "-m", "celery", "-A", "tippers.celery", "-q", "beat", "--pidfile="
        )
        return [web, *takers, beat]

    def _command(self, name: str, *arguments: str, raw: bool = False) -> Child:
        return Child(name, [sys.executable, *arguments], env=self._environment, raw=raw)

    def _idle(self) -> None:
        self.children.tick(0.02)

    def _wait_until_ready(self, listener: socket.socket) -> None:
        deadline = time.monotonic() + READY_SECONDS
        missing = "the web server does not answer"
        while time.monotonic() < deadline:
            self.children.tick(0.1)
            answer = self._ask_ready(listener)
            if answer is None:
                continue
            ready, details = answer
            if ready:
                return
            missing = ", ".join(f"{name}: {said}" for name, said in details.items())
        raise CannotStart(f"Not ready after {READY_SECONDS:.0f} s: {missing or 'no reason given'}.")

    def _ask_ready(self, listener: socket.socket) -> tuple[bool, dict[str, str]] | None:
        """What /health says, watching the children while it takes its time."""
        host, port = listener.getsockname()[:2]
        host = SHOWN_FOR_ALL_ADDRESSES.get(host, host)
        received = b""
        try:
            with socket.create_connection((host, port), timeout=5) as connection:
                request = "GET /health HTTP/1.0\r\nHost: localhost\r\nAccept: application/json"
                connection.sendall(f"{request}\r\n\r\n".encode())
                connection.setblocking(False)
                for _ in range(200):
                    self.children.tick(0.05)
                    try:
                        data = connection.recv(65536)
                    except BlockingIOError:
                        continue
                    if not data:
                        break
                    received += data
        except OSError:
            return None
        try:
            body = json.loads(received.partition(b"\r\n\r\n")[2])
            return body["ready"], body["details"]
        except (ValueError, KeyError, TypeError):
            return None

    def _watch(self) -> None:
        newest = _newest_source()
        looked_at = time.monotonic()
        while True:
            self.children.tick(0.2)
            # The web server reloads by itself.
            if self.options.reload and time.monotonic() - looked_at > 1:
                looked_at = time.monotonic()
                if (found := _newest_source()) > newest:
                    newest = found
                    say("The code has changed: restarting the workers and the scheduler")
                    for child in self.children.children:
                        if child.name in ("short", "long", "beat"):
                            self.children.restart(child)


class Background:
    """`manage.py serve` beside this process, for the demo and for tests: started, ready, stopped.

    It ends with the thread that started it, so start it from the main thread.
    """

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None) -> None:
        self.home = Home(home)
        self._child = Child(
            "serve",
            [sys.executable, str(CHECKOUT / "manage.py"), "serve", "--quiet"],
            env=os.environ | (environment or {}) | {"TIPPERS_HOME": str(self.home.path)},
            death_signal=signal.SIGTERM,
        )

    def __enter__(self) -> Stack:
        self.home.prepare()
        self.log = self.home.logs / "serve.log"
        with self.log.open("wb") as log:
            process = self._child.process = self._child.spawn(log.fileno())
        try:
            while True:
                stack = self.home.stack()
                if stack and stack.ready and stack.pid == process.pid:
                    return stack
                if process.poll() is not None:
                    raise CannotStart(self.log.read_text(errors="replace").strip()[-2000:])
                time.sleep(0.05)
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def wait(self) -> int:
        """Until it ends; its exit status."""
        if self._child.process is None:
            raise RuntimeError("it was never started")
        return self._child.process.wait()

    def stop(self) -> int:
        """Stop it cleanly; its exit status."""
        self._child.ask_to_stop()
        return self.wait()


def listen(host: str, port: int | None) -> socket.socket:
    """The web server's socket, held here so that nobody takes the port while it restarts."""
    ports = range(FIRST_PORT, LAST_PORT + 1) if port is None else (port,)
    for each in ports:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, each, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            raise _cannot_listen(host, error) from error
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise _cannot_listen(host, error, each) from error
            continue
        return listener
    if port is None:
        raise CannotStart(f"Every port from {FIRST_PORT} to {LAST_PORT} is in use: set PORT.")
    raise CannotStart(
        f"Port {port} on {host} is in use: stop what uses it, set PORT to another one, or leave PORT "
        "unset to get the next free one."
    )


def web_url(host: str, listener: socket.socket) -> str:
    shown = SHOWN_FOR_ALL_ADDRESSES.get(host, host)
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"


def _cannot_listen(host: str, error: OSError, port: int | None = None) -> CannotStart:
    if error.errno == errno.EACCES:
        return CannotStart(f"This user may not listen on port {port}: set PORT to 1024 or above.")
    return CannotStart(
        f"HOST={host} is no address of this machine ({error.strerror or error}): set HOST to "
        "127.0.0.1, or to an address that the machine has."
    )


def _whole_number(name: str, *, least: int, most: int | None = None) -> int | None:
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    if text.isdecimal() and least <= int(text) and (most is None or int(text) <= most):
        return int(text)
    bounds = f"from {least} to {most}" if most is not None else f"of at least {least}"
    raise CannotStart(f"{name} must be a whole number {bounds}, not {text!r}.")


def _newest_source() -> float:
    newest = 0.0
    for package in CHECKOUT.glob("*/__init__.py"):
        for path in package.parent.rglob("*.py"):
            with suppress(FileNotFoundError):  # an editor has just replaced it
                newest = max(newest, path.stat().st_mtime)
    return newest
