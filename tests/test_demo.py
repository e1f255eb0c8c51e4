"""What the demo refuses before it starts anything, and how it reads hours.

The demo itself, on a running stack, is tested in tests/flows.
"""

from datetime import datetime
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tippers.demo.report import busiest_hours
from tippers.management.commands.demo import given_data
from tippers.sample.visitors import VISITORS


def test_a_folder_without_sessions_is_refused_by_the_name_of_what_is_missing(
    tmp_path: Path,
) -> None:
    with pytest.raises(CommandError, match="DEMO_DATA names no folder"):
        call_command("demo", data=tmp_path / "nowhere")
    with pytest.raises(CommandError, match=r"neither space\.csv nor space\.parquet"):
        call_command("demo", data=tmp_path)
    (tmp_path / "space.csv").touch()
    with pytest.raises(CommandError, match=r"neither user_ap_trajectory\.csv nor"):
        call_command("demo", data=tmp_path)


def test_real_sessions_are_taken_as_csv_or_parquet_and_have_no_truth(tmp_path: Path) -> None:
    (tmp_path / "space.csv").touch()
    (tmp_path / "user_ap_trajectory.parquet").touch()
    data = given_data(tmp_path)
    assert (data.spaces.name, data.sessions.name) == ("space.csv", "user_ap_trajectory.parquet")
    assert data.recipe is VISITORS
    assert data.truth is None


def test_a_campus_too_small_is_refused_with_the_settings_named() -> None:
    with pytest.raises(CommandError, match="DEMO_DEVICES, DEMO_ROOMS and DEMO_DAYS"):
        call_command("demo", devices=5)


def test_the_busiest_hours_add_up_the_days_and_break_ties_by_the_clock() -> None:
    hours = [
        (datetime(2024, 1, day, hour), devices)  # noqa: DTZ001 - as the API prints them: UTC
        for day, hour, devices in [(1, 9, 5), (2, 9, 5), (1, 14, 7), (2, 8, 10), (1, 3, 1)]
    ]
    assert busiest_hours(hours) == [8, 9, 14]
    assert busiest_hours([]) == []
