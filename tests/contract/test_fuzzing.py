"""Whatever is sent to the running server, it answers as its schema says, and never with a 5xx."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from knox.models import AuthToken

from tests.contract.conftest import World
from tippers.embedded.home import free_port

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance"
)
EXAMPLES = 3  # made-up requests for each operation, after every boundary of every field
# Logging out would end the token in use (tests/test_signin.py holds it); 503 is what /health/ready
# has to say while nothing works off the runs; and a second address of the same views would show
# nothing new.
EXCLUDED = r"^/auth/logout$|^/health/ready$|^/connections|^/runs|/labeling-functions/custom$"
# Methods that are not there are held by tests/contract/test_bodies.py, at a tenth of the cost.
CONFIG = "[phases.coverage]\nunexpected-methods = []\n"


def schema_of_what_there_is(server: str, world: World) -> dict[str, Any]:
    """The server's schema with the ids of the world, or most requests would find nothing."""
    request = urllib.request.Request(f"{server}/schema", headers={"Accept": "application/json"})
    with urllib.request.urlopen(request) as response:
        schema: dict[str, Any] = json.load(response)
    jobs = {"snorkel": world.snorkel_job, "classifiers": world.classifier_job}
    for path, operations in schema["paths"].items():
        family = path.split("/")[3] if path.count("/") > 2 else ""
        ids = {**world.ids, "job_id": jobs.get(family)}
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path" and parameter["name"] in ids:
                    parameter["schema"]["enum"] = [ids[parameter["name"]]]
    return schema


@pytest.fixture
def server(world: World, tmp_path: Path) -> Iterator[str]:
    """The web server as it is deployed, over the test's databases and store; its address."""
    database = connection.settings_dict
    address = f"127.0.0.1:{free_port()}"
    env = os.environ | {
        "DATABASE_URL": "postgresql://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**database),
        "TIPPERS_DB_URL": settings.TIPPERS_DB_URL,
        "TIPPERS_HOME": str(tmp_path),  # its folder `storage` is the test's own store
        "ALLOWED_DB_NETWORKS": "127.0.0.0/8",
    }
    command = [sys.executable, "-m", "gunicorn", "tippers.wsgi", "--bind", address]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen([*command, "--threads", "4"], env=env, stdout=log, stderr=log)
    try:
        wait_for(f"http://{address}/health", process)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except URLError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the server ended before it answered")


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(600)
def test_the_running_server_keeps_to_its_schema(
    transactional_db: None, world: World, server: str, ada: User, tmp_path: Path
) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(schema_of_what_there_is(server, world)))
    (tmp_path / "schemathesis.toml").write_text(CONFIG)  # read from the working directory
    token: Any = AuthToken.objects.create(user=ada)[1]
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run", str(schema), "--url", server,
        "--header", f"Authorization: Bearer {token}",
        "--checks", CHECKS, "--phases", "coverage,fuzzing",
        "--max-examples", str(EXAMPLES), "--seed", "1", "--no-shrink",
        "--generation-database", "none", "--suppress-health-check", "all",
        "--continue-on-failure", "--warnings", "off", "--no-color",
        "--exclude-path-regex", EXCLUDED,
    ]  # fmt: skip
    # Deletions last, so that there is something to ask for.
    for which in ("--exclude-method", "--include-method"):
        done = subprocess.run(
            [*command, which, "DELETE"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        log = (tmp_path / "server.log").read_text()
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{log[-4000:]}"
