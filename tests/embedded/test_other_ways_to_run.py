"""Makefile, CI, image and compose file name only what exists. (They run where there is an engine.)"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

from tippers.embedded.home import CHECKOUT


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    services = compose["services"].items()
    return {name: each for name, each in services if each["image"] == "tippers-services"}


def runs_something_that_exists(command: list[str]) -> None:
    program, *arguments = command
    assert (Path(sys.executable).parent / program).exists(), command
    if "manage.py" in arguments:
        assert arguments[arguments.index("manage.py") + 1] in get_commands()
    if program == "celery":
        assert arguments[arguments.index("-A") + 1] == "tippers.celery"
        assert {"worker", "beat"} & set(arguments)
    if program == "gunicorn":
        assert arguments[0] == "tippers.wsgi"


def test_the_compose_file_has_the_whole_stack(compose: dict[str, Any]) -> None:
    assert {
        "postgres",
        "redis",
        "s3",
        "bootstrap",
        "web",
        "worker-short",
        "worker-long",
        "beat",
    } <= (set(compose["services"]))


def test_every_command_of_the_image_exists(compose: dict[str, Any]) -> None:
    dockerfile = (CHECKOUT / "Dockerfile").read_text().replace("\\\n", "")
    default = json.loads(re.findall(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)[0])
    runs_something_that_exists(default)
    for service in ours(compose).values():
        if "command" in service:
            runs_something_that_exists(shlex.split(service["command"]))


def test_workers_take_both_queues(compose: dict[str, Any]) -> None:
    queues = [
        arguments[arguments.index("-Q") + 1]
        for arguments in (shlex.split(each.get("command", "")) for each in ours(compose).values())
        if "worker" in arguments
    ]
    assert queues == ["short", "long,short"]


def test_every_service_volume_and_config_that_is_named_exists(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert set(service.get("depends_on", ())) <= set(compose["services"])
        assert {each.split(":")[0] for each in service.get("volumes", ())} <= set(
            compose["volumes"]
        )
        assert {each["source"] for each in service.get("configs", ())} <= set(compose["configs"])


def test_every_variable_is_one_that_the_settings_read_and_the_example_explains(
    compose: dict[str, Any],
) -> None:
    settings = (CHECKOUT / "tippers" / "settings.py").read_text()
    example = (CHECKOUT / ".env.example").read_text()
    read_by_boto = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    for name in set(compose["x-service"]["environment"]) - read_by_boto:
        assert f'"{name}"' in settings, name
    asked = set(re.findall(r"\$\{(\w+)", (CHECKOUT / "docker-compose.yml").read_text()))
    for name in asked:
        assert re.search(rf"^#{name}=", example, re.MULTILINE), name


def test_the_example_sets_nothing_and_has_no_comment_that_would_become_a_value() -> None:
    for line in (CHECKOUT / ".env.example").read_text().splitlines():
        assert not line or line.startswith("#")
        if re.match(r"#[A-Z_]+=", line):
            assert " #" not in line


def test_make_explains_every_target() -> None:
    said = subprocess.run(
        ["make", "help"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    targets = re.findall(r"^  make (\w+) +\w", said, re.MULTILINE)
    assert targets == ["help", "setup", "demo", "serve", "test", "faults", "lint", "bench"]


def test_ci_runs_what_the_makefile_offers_and_nothing_else() -> None:
    script = CHECKOUT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    calls = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert calls == ["set -eu", 'cd "$(dirname "$0")/.."', "make lint", "make test"]
