"""What holds for the repository as a whole."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_imports_point_down_only() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_setting_is_in_the_readmes_table() -> None:
    sources = [ROOT / "tippers" / "settings.py", *(ROOT / "tippers" / "embedded").glob("*.py")]
    call = re.compile(
        r"""(?:env\.\w+|environ\.get|_flag|_positive_int|_whole_number|_multiple|_from_stack)\(\s*"([A-Z][A-Z0-9_]+)\""""
    )
    named = {name for path in sources for name in call.findall(path.read_text())}
    assert {"TIPPERS_HOME", "REDIS_URL", "S3_BUCKET_NAME"} <= named, "the pattern finds them"
    rows = [
        line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `")
    ]
    documented = {name for row in rows for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", row)}
    assert named - documented - {"PATH", "LC_ALL"} == set()


def test_the_readme_shows_the_commands_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"^make \w+", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert commands
    assert [command for command in commands if command not in readme] == []
