"""A scratch PostgreSQL for a benchmark, and with it a broker where workers take part."""

import base64
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tippers.embedded.broker import Broker
from tippers.embedded.home import Home
from tippers.embedded.postgres import Cluster

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def scratch_stack() -> Iterator[dict[str, str]]:
    """The environment in which Tippers' processes use the scratch servers; gone after the block."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        home.prepare()
        cluster = Cluster(home)
        cluster.start()
        broker = Broker(home)
        child = broker.prepare()
        with (home.logs / "broker.log").open("wb") as log:
            server = child.spawn(log.fileno())
        try:
            broker.wait_until_ready(lambda: time.sleep(0.02))
            yield os.environ | {
                "DATABASE_URL": cluster.superuser_url,
                "TIPPERS_DB_URL": cluster.superuser_url,
                "REDIS_URL": broker.url,
                "SECRET_KEY": "benchmark",
                "TIPPERS_ENCRYPTION_KEYS": base64.urlsafe_b64encode(bytes(32)).decode(),
                "TIPPERS_HOME": str(home.path),
                "ALLOWED_DB_NETWORKS": "127.0.0.0/8",
                "DJANGO_SETTINGS_MODULE": "tippers.settings",
                "PYTHONPATH": str(ROOT),
            }
        finally:
            server.terminate()
            server.wait()
            cluster.stop()
            cluster.remove()
