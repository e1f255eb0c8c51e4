"""What the demo prints at its end."""

from collections import defaultdict
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow.compute as pc

from tippers.demo.concept_pipeline import Labelled
from tippers.demo.occupancy_pipeline import Counted
from tippers.demo.screen import Screen
from tippers.sample.campus import Truth

BEST = 5


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def show_labels(labelled: Labelled, screen: Screen) -> None:
    """How much was labelled, and what each function contributed."""
    summary = labelled.snorkel["summary"]
    share = summary["labelled"] / max(summary["total_samples"], 1)
    screen.say(
        f"\nLabel coverage: {percent(share)} "
        f"({summary['labelled']:,} of {summary['total_samples']:,} devices; on the others every "
        "function abstained or the votes tied)"
    )
    found: dict[str, int] = defaultdict(int)
    for name in labelled.predictions.values():
        found[name] += 1
    screen.say("  " + ", ".join(f"{name} {found[name]:,}" for name in labelled.names.values()))
    screen.table(
        "Labeling functions",
        ["function", "votes for", "coverage", "overlaps", "conflicts", "weight"],
        [
            [
                row["name"],
                "\n".join(labelled.names[cv_id] for cv_id in row["polarity"]) or "-",
                percent(row["coverage"]),
                percent(row["overlaps"]),
                percent(row["conflicts"]),
                "-" if row["learned_weight"] is None else f"{row['learned_weight']:.2f}",
            ]
            for row in labelled.snorkel["lf_analysis"]
        ],
    )


def show_classifiers(labelled: Labelled, screen: Screen) -> None:
    """The best of the bank, scored on devices that they were not trained on."""
    scores = labelled.classifiers["model_scores"]
    stats = labelled.classifiers["filtering_stats"]
    screen.say(
        f"\n{labelled.classifiers['num_models_trained']} classifiers were trained on "
        f"{stats['samples_after_filter']:,} confidently labelled devices. The scores say how well "
        "each repeats the label model's labels on devices it has not seen."
    )
    screen.table(
        f"The {min(BEST, len(scores))} best classifiers",
        ["classifier", "accuracy", "balanced", "F1", "seconds"],
        [
            [
                row["Model"],
                percent(row["Accuracy"]),
                percent(row["Balanced Accuracy"]),
                percent(row["F1 Score"]),
                f"{row['Time Taken']:.2f}",
            ]
            for row in scores[:BEST]
        ],
    )


def show_occupancy(counted: list[Counted], screen: Screen) -> None:
    """Every space above the rooms: how full, when, and at what hours of the day."""
    rows = []
    for space in counted:
        peak, most = max(space.hours, key=lambda hour: hour[1], default=(None, 0))
        rows.append(
            [
                "  " * space.depth + space.name,
                f"{len(space.hours):,}",
                f"{sum(devices for _, devices in space.hours):,}",
                f"{most:,}",
                "-" if peak is None else f"{peak:%a %Y-%m-%d %H:%M}",
                " ".join(f"{hour:02d}" for hour in busiest_hours(space.hours)),
            ]
        )
    screen.table(
        "Occupancy per hour (times in UTC; a space counts the sum of what lies in it)",
        ["space", "hours", "device-hours", "most", "when", "busiest hours of day"],
        rows,
    )


def busiest_hours(hours: list[tuple[datetime, int]], count: int = 3) -> list[int]:
    """The hours of day with the most devices over the whole range, the busiest first."""
    total: dict[int, int] = defaultdict(int)
    for begin, devices in hours:
        total[begin.hour] += devices
    return sorted(total, key=lambda hour: (-total[hour], hour))[:count]


def show_accuracy(truth: Truth, labelled: Labelled, counted: list[Counted], screen: Screen) -> None:
    """What only a simulation can tell: how the answers compare with what really happened."""
    types = dict(
        zip(
            truth.device_types["mac_address"].to_pylist(),
            truth.device_types["device_type"].to_pylist(),
            strict=True,
        )
    )
    right = sum(types[mac] == name for mac, name in labelled.predictions.items())
    share = right / max(len(labelled.predictions), 1)
    lines = [
        f"Label model: {percent(share)} of the labelled devices are what the label says",
    ]
    if labelled.classified:
        best = labelled.classifiers["model_scores"][0]["Model"]
        test, train, rest = (
            [row for row in labelled.classified if row["split"] == split]
            for split in ("test", "train", None)
        )
        lines.append(
            f"Best classifier: {best} is right on {_right(test, types)} of the {len(test):,} test "
            f"devices, which it did not learn from, on {_right(train, types)} of the {len(train):,} "
            f"it learned from, and on {_right(rest, types)} of the {len(rest):,} without a "
            "confident label, the hardest"
        )
    campus = next((space for space in counted if space.depth == 0), None)
    if campus and (follows := _follows(truth, campus.hours)) is not None:
        lines.append(
            "Occupancy: hour by hour the devices on the campus follow the people who were really "
            f"there with a correlation of {follows:.3f}"
        )
    screen.step("Against the simulation's hidden truth (no step above has seen it)")
    for line in lines:
        screen.say(f"  {line}")


def _right(rows: list[dict[str, Any]], types: dict[str, str]) -> str:
    right = sum(types[row["sample_id"]] == row["predicted_name"] for row in rows)
    return percent(right / len(rows) if rows else None)


def _follows(truth: Truth, hours: list[tuple[datetime, int]]) -> float | None:
    per_hour = truth.people.group_by("interval_begin_time").aggregate([("people", "sum")])
    people = dict(
        zip(
            pc.cast(per_hour["interval_begin_time"], "timestamp[us]").to_pylist(),
            per_hour["people_sum"].to_pylist(),
            strict=True,
        )
    )
    both = [(people.get(begin, 0), devices) for begin, devices in hours]
    if len(both) < 3:
        return None
    return float(np.corrcoef(np.array(both).T)[0, 1])
