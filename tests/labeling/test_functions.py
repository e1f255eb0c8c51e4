"""Labeling functions over REST: what is saved, who approves, what clears an approval, and tries."""

import functools
import hashlib
from typing import Any

import pyarrow as pa
import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from pytest_django.fixtures import Settings
from rest_framework.test import APIClient

from concepts.models import Rule
from labeling import functions
from labeling.api.functions import TryThrottle
from labeling.models import LabelingFunction
from tests.conftest import body
from tests.labeling.conftest import Devices, publish
from tippers.errors import NotPossibleNow


def test_a_custom_function_is_saved_inactive_and_waits_for_approval(devices: Devices) -> None:
    code = devices.code("STATIC", "row['n'] > 1")
    lf = devices.custom("static")
    cv_ids = list(devices.values.values())
    expected = {
        "c_id": devices.concept.c_id, "applicable_cv_ids": cv_ids, "rule_id": devices.rule.r_id,
        "name": "static", "version": 1, "parent_lf_id": None, "lf_type": "custom",
        "lf_config": {"code": code, "allowed_imports": []}, "is_active": False,
        "requires_approval": True, "deprecated_at": None, "deprecated_by_lf_id": None,
        "estimated_accuracy": None, "coverage": None, "conflicts": None,
    }  # fmt: skip
    assert {name: lf[name] for name in expected} == expected
    assert devices.get(f"labeling-functions/{lf['lf_id']}") == lf


def test_without_code_it_gets_a_template_to_start_from(devices: Devices) -> None:
    said = {"name": "new", "rule_id": devices.rule.r_id,
            "applicable_cv_ids": [devices.values["PHONE"], devices.values["STATIC"]]}  # fmt: skip
    code = devices.post("labeling-functions", said)["lf_config"]["code"]
    assert code.startswith(
        f"PHONE = {devices.values['PHONE']}\nSTATIC = {devices.values['STATIC']}\nABSTAIN = -1\n"
    )
    assert "def labeling_function(row):" in code


def test_the_template_can_be_seen_before_anything_is_saved(devices: Devices) -> None:
    cv_id = devices.values["LAPTOP"]
    shown = devices.get(f"labeling-functions/template?applicable_cv_ids={cv_id}")
    assert shown["applicable_cv_ids"] == [cv_id]
    assert shown["code"].startswith(f"LAPTOP = {cv_id}\n")
    assert not LabelingFunction.objects.exists()
    said = devices.get("labeling-functions/template?applicable_cv_ids=999999", status=400)
    assert "no value 999999" in said["errors"]["applicable_cv_ids"][0]


def test_template_and_regex_functions_start_active_and_need_no_approval(devices: Devices) -> None:
    label = devices.values["PHONE"]
    template = devices.post(
        "labeling-functions/template",
        {"name": "t", "rule_id": devices.rule.r_id, "field": "n", "operator": ">", "value": 2,
         "label": label},
    )  # fmt: skip
    regex = devices.post(
        "labeling-functions/regex",
        {"name": "r", "rule_id": devices.rule.r_id, "field": "mac", "pattern": "^mac0",
         "label": label, "applicable_cv_ids": list(devices.values.values())},
    )  # fmt: skip
    custom = devices.post(
        "labeling-functions/custom",
        {"name": "c", "rule_id": devices.rule.r_id, "label": label, "allowed_imports": ["re"],
         "code": "def labeling_function(row):\n    return -1"},
    )  # fmt: skip
    assert template["lf_config"] == {"field": "n", "operator": ">", "value": 2, "label": label}
    assert (template["lf_type"], template["applicable_cv_ids"]) == ("template", [label])
    assert (regex["lf_type"], len(regex["applicable_cv_ids"])) == ("regex", 3)
    assert [lf["is_active"] for lf in (template, regex, custom)] == [True, True, False]
    assert [lf["requires_approval"] for lf in (template, regex, custom)] == [False, False, True]


@pytest.mark.parametrize(
    ("path", "change", "field"),
    [
        ("", {"rule_id": 99_999}, "rule_id"),
        ("", {"applicable_cv_ids": [99_999]}, "applicable_cv_ids"),
        ("", {"applicable_cv_ids": []}, "applicable_cv_ids"),
        ("", {"applicable_cv_ids": None}, "applicable_cv_ids"),
        ("", {"name": ""}, "name"),
        ("", {"cod": "x"}, "cod"),
        ("", {"allowed_imports": ["os"]}, "allowed_imports"),
        ("", {"code": "import os"}, "code"),
        ("/template", {"field": "gone"}, "field"),
        ("/template", {"operator": "=~"}, "operator"),
        ("/template", {"operator": "in", "value": 3}, "value"),
        ("/template", {"operator": "contains", "value": 3}, "value"),
        ("/template", {"value": {"a": 1}}, "value"),
        ("/template", {"value": "nul \0"}, "value"),
        ("/template", {"label": 99_999}, "label"),
        ("/regex", {"pattern": "(?=a)"}, "pattern"),
        ("/regex", {"pattern": "("}, "pattern"),
        ("/regex", {"pattern": ""}, "pattern"),
    ],
)
def test_bad_input_names_its_field_and_nothing_is_saved(
    devices: Devices, path: str, change: dict[str, object], field: str
) -> None:
    label = devices.values["PHONE"]
    said: dict[str, object] = {"name": "x", "rule_id": devices.rule.r_id}
    bodies: dict[str, dict[str, object]] = {
        "": {"applicable_cv_ids": [label]},
        "/template": {"field": "n", "operator": ">", "value": 2, "label": label},
        "/regex": {"field": "mac", "pattern": "a", "label": label},
    }
    said |= bodies[path] | change
    refused = devices.post(f"labeling-functions{path}", said, status=400)
    assert field in refused["errors"], refused
    assert not LabelingFunction.objects.exists()


def test_code_that_contradicts_the_concept_is_refused_with_both_ids(devices: Devices) -> None:
    said = {
        "name": "x", "rule_id": devices.rule.r_id, "applicable_cv_ids": [devices.values["STATIC"]],
        "code": "STATIC = 987654\n\ndef labeling_function(row):\n    return STATIC",
    }  # fmt: skip
    refused = devices.post("labeling-functions", said, status=400)
    assert "987654" in refused["detail"]
    assert str(devices.values["STATIC"]) in refused["detail"]
    assert refused["detail"].startswith("line 1")


def test_names_are_unique_within_the_concept(devices: Devices) -> None:
    first, second = devices.custom("one"), devices.custom("two")
    said = {"name": "one", "rule_id": devices.rule.r_id, "applicable_cv_ids": [first["c_id"]]}
    assert "name" in devices.post("labeling-functions", said, status=400)["errors"]
    lf_id = second["lf_id"]
    assert "name" in devices.patch(f"labeling-functions/{lf_id}", {"name": "one"}, status=400)[
        "errors"
    ]  # fmt: skip
    assert devices.patch(f"labeling-functions/{lf_id}", {"name": "two"})["name"] == "two"


def test_a_list_is_paged_and_can_show_the_active_ones_alone(devices: Devices) -> None:
    ids = [devices.custom(f"lf{number}")["lf_id"] for number in range(3)]
    devices.approve(ids[1])
    assert [lf["lf_id"] for lf in devices.get("labeling-functions")] == ids
    assert [lf["lf_id"] for lf in devices.get("labeling-functions?active_only=true")] == [ids[1]]
    response = devices.api.get(f"{devices.functions}?skip=1&limit=1")
    assert [lf["lf_id"] for lf in body(response)] == [ids[1]]
    assert response.headers["X-Total-Count"] == "3"
    assert "active_only" in devices.get("labeling-functions?active_only=x", status=400)["errors"]


def test_approval_activates_and_is_bound_to_the_code(devices: Devices) -> None:
    lf = devices.custom("static")
    approved = devices.approve(lf["lf_id"])
    assert (approved["is_active"], approved["requires_approval"]) == (True, False)
    code = lf["lf_config"]["code"]
    assert approved["approved_sha256"] == hashlib.sha256(code.encode()).hexdigest()
    assert (approved["created_by"], approved["approved_by"]) == ("ana", "ada")
    assert devices.approve(lf["lf_id"], status=409)["code"] == "conflict"


def test_approval_names_the_code_that_the_reviewer_saw(
    devices: Devices, settings: Settings
) -> None:
    lf = devices.custom("static")
    path = f"{devices.functions}/{lf['lf_id']}"
    seen = lf["code_sha256"]
    assert seen == hashlib.sha256(lf["lf_config"]["code"].encode()).hexdigest()
    assert "code_sha256" in body(devices.reviewer.post(f"{path}/approve"))["errors"]
    changed = {"lf_config": {"code": devices.code("PHONE", "row['n'] > 2"), "allowed_imports": []}}
    devices.patch(f"labeling-functions/{lf['lf_id']}", changed)
    refused = devices.reviewer.post(f"{path}/approve", {"code_sha256": seen})
    assert (refused.status_code, body(refused)["code"]) == (409, "conflict")
    settings.FOUR_EYES = False
    assert devices.reviewer.post(f"{path}/approve", {"code_sha256": seen}).status_code == 409
    assert not LabelingFunction.objects.get(lf_id=lf["lf_id"]).is_active
    assert devices.reviewer.post(f"{path}/approve").status_code == 200


def test_any_edit_of_the_code_clears_the_approval(devices: Devices) -> None:
    lf = devices.custom("static")
    path = f"labeling-functions/{lf['lf_id']}"
    devices.approve(lf["lf_id"])
    config = {"code": devices.code("STATIC", "row['n'] > 2"), "allowed_imports": []}
    edited = devices.patch(path, {"lf_config": config})
    assert (edited["is_active"], edited["requires_approval"]) == (False, True)
    assert (edited["approved_sha256"], edited["approved_by"]) == (None, None)
    assert edited["lf_config"] == config
    devices.approve(lf["lf_id"])
    imports = devices.patch(path, {"lf_config": config | {"allowed_imports": ["re"]}})
    assert (imports["is_active"], imports["requires_approval"]) == (False, True)


def test_a_rename_or_the_same_code_again_keeps_the_approval(devices: Devices) -> None:
    lf = devices.custom("static")
    devices.approve(lf["lf_id"])
    kept = devices.patch(
        f"labeling-functions/{lf['lf_id']}", {"name": "still", "lf_config": lf["lf_config"]}
    )
    assert (kept["name"], kept["is_active"]) == ("still", True)


def test_an_unapproved_function_cannot_be_switched_on(devices: Devices) -> None:
    lf = devices.custom("static")
    path = f"labeling-functions/{lf['lf_id']}"
    assert "must be approved" in devices.post(f"{path}/toggle", status=409)["detail"]
    changes = {"name": "sneaky", "is_active": True}
    assert "must be approved" in devices.patch(path, changes, status=409)["detail"]
    assert devices.get(path) == lf, "half of the change was written"
    devices.approve(lf["lf_id"])
    assert devices.post(f"{path}/toggle", status=200)["is_active"] is False
    assert devices.patch(path, {"is_active": True})["is_active"] is True


def test_editing_and_activating_in_one_request_is_no_way_round(devices: Devices) -> None:
    lf = devices.custom("static")
    devices.approve(lf["lf_id"])
    config = {"code": devices.code("PHONE", "row['n'] > 2")}
    changes = {"lf_config": config, "is_active": True}
    devices.patch(f"labeling-functions/{lf['lf_id']}", changes, status=409)
    kept = devices.get(f"labeling-functions/{lf['lf_id']}")
    assert (kept["lf_config"], kept["is_active"]) == (lf["lf_config"], True)


def test_an_edit_is_judged_like_a_new_function(devices: Devices) -> None:
    lf = devices.custom("static")
    path = f"labeling-functions/{lf['lf_id']}"
    evil = {"lf_config": {"code": "import os\ndef labeling_function(row):\n    return 1"}}
    assert "line 1: os" in devices.patch(path, evil, status=400)["detail"]
    assert "line 1: os" in devices.post(f"{path}/versions", evil, status=400)["detail"]
    refused = devices.patch(path, {"lf_config": {}}, status=400)
    assert refused["errors"] == {"lf_config": ["code: This field is required."]}
    assert devices.get(path) == lf


def test_nobody_approves_what_they_wrote(devices: Devices, settings: Settings) -> None:
    said = {"name": "own", "rule_id": devices.rule.r_id,
            "applicable_cv_ids": [devices.values["STATIC"]]}  # fmt: skip
    lf = body(devices.reviewer.post(devices.functions, said))
    refused = devices.approve(lf["lf_id"], status=403)
    assert "other than its author" in refused["detail"]
    theirs = devices.custom("theirs")
    config = {"lf_config": {"code": devices.code("PHONE", "row['n'] > 3")}}
    devices.reviewer.patch(f"{devices.functions}/{theirs['lf_id']}", config)
    devices.approve(theirs["lf_id"], status=403)
    settings.FOUR_EYES = False
    assert devices.approve(lf["lf_id"])["is_active"] is True


def test_approving_takes_the_permission(devices: Devices, viewer: APIClient) -> None:
    lf = devices.custom("static")
    path = f"{devices.functions}/{lf['lf_id']}/approve"
    assert devices.api.post(path).status_code == 403
    assert viewer.post(path).status_code == 403
    assert viewer.get(devices.functions).status_code == 200
    assert viewer.post(devices.functions, {}).status_code == 403


def test_versions_replace_one_another_and_every_one_shows_the_whole_chain(
    devices: Devices,
) -> None:
    first = devices.custom("static")
    devices.approve(first["lf_id"])
    config = {"code": devices.code("STATIC", "row['n'] > 3")}
    path = f"labeling-functions/{first['lf_id']}/versions"
    second = devices.post(path, {"lf_config": config})
    assert (second["name"], second["version"]) == ("static_v2", 2)
    assert (second["parent_lf_id"], second["is_active"]) == (first["lf_id"], False)
    assert second["applicable_cv_ids"] == first["applicable_cv_ids"]
    old = devices.get(f"labeling-functions/{first['lf_id']}")
    assert (old["is_active"], old["deprecated_by_lf_id"]) == (False, second["lf_id"])
    assert old["deprecated_at"] is not None
    third = devices.post(
        f"labeling-functions/{second['lf_id']}/versions", {"lf_config": config, "name": "third"}
    )
    for lf_id in (first["lf_id"], second["lf_id"], third["lf_id"]):
        chain = devices.get(f"labeling-functions/{lf_id}/versions")
        assert [lf["version"] for lf in chain] == [1, 2, 3]
    assert "newest" in devices.post(path, {"lf_config": config}, status=409)["detail"]


def test_a_new_function_may_name_the_one_that_it_replaces(devices: Devices) -> None:
    first = devices.custom("static")
    devices.approve(first["lf_id"])
    said = {"rule_id": devices.rule.r_id, "applicable_cv_ids": [devices.values["PHONE"]],
            "parent_lf_id": first["lf_id"]}  # fmt: skip
    second = devices.post("labeling-functions", {"name": "second", **said})
    assert (second["version"], second["requires_approval"], second["is_active"]) == (2, True, False)
    old = devices.get(f"labeling-functions/{first['lf_id']}")
    assert (old["is_active"], old["deprecated_by_lf_id"]) == (False, second["lf_id"])
    devices.post("labeling-functions", {"name": "third", **said}, status=409)
    devices.approve(first["lf_id"], status=409)


def test_what_an_approval_means_cannot_be_written(devices: Devices) -> None:
    lf = devices.custom("static")
    path = f"labeling-functions/{lf['lf_id']}"
    for field, value in {
        "requires_approval": False, "approved_sha256": lf["code_sha256"], "lf_type": "template",
        "approved_at": "2024-01-01T00:00:00Z", "rejection_reason": None, "version": 2,
    }.items():  # fmt: skip
        assert field in devices.patch(path, {field: value}, status=400)["errors"]
    assert devices.get(path) == lf
    template = devices.post(
        "labeling-functions/template",
        {"name": "t", "rule_id": devices.rule.r_id, "field": "n", "operator": ">", "value": 2,
         "label": devices.values["PHONE"]},
    )  # fmt: skip
    config = {**template["lf_config"], "code": lf["lf_config"]["code"]}
    path = f"labeling-functions/{template['lf_id']}"
    assert (
        "code" in devices.patch(path, {"lf_config": config}, status=400)["errors"]["lf_config"][0]
    )
    assert "code" in devices.post(
        f"{path}/versions", {"lf_config": config}, status=400
    )["errors"]["lf_config"][0]  # fmt: skip


def test_whoever_decides_on_an_older_state_is_told_to_look_again(
    devices: Devices, ada: User
) -> None:
    """What an approval or a switch rests on is compared in the statement that writes it."""
    lf_id = devices.custom("static")["lf_id"]
    path = f"labeling-functions/{lf_id}"
    seen = [LabelingFunction.objects.get(lf_id=lf_id) for _ in range(3)]
    functions.reject(seen[0], ada, reason="no", code_sha256=seen[0].code_sha256)
    with pytest.raises(NotPossibleNow, match="changed by somebody else"):
        functions.approve(seen[1], ada, code_sha256=seen[1].code_sha256)
    devices.patch(path, {"lf_config": {"code": devices.code("STATIC", "row['n'] > 2")}})
    for act in (functions.approve, functools.partial(functions.reject, reason="no")):
        with pytest.raises(NotPossibleNow, match="changed by somebody else"):
            act(seen[2], ada, code_sha256=seen[2].code_sha256)
    now = devices.get(path)
    assert (now["is_active"], now["rejected_at"]) == (False, None)
    devices.approve(lf_id)
    devices.post(f"{path}/toggle", status=200)
    stale = LabelingFunction.objects.get(lf_id=lf_id)
    devices.post(f"{path}/versions", {"lf_config": now["lf_config"]})
    with pytest.raises(NotPossibleNow, match="changed by somebody else"):
        functions.toggle(stale, ada)
    assert devices.get(path)["is_active"] is False


def test_a_deprecated_version_stays_off(devices: Devices) -> None:
    first = devices.custom("static")
    devices.approve(first["lf_id"])
    path = f"labeling-functions/{first['lf_id']}"
    devices.post(f"{path}/versions", {"lf_config": first["lf_config"]})
    assert "deprecated" in devices.post(f"{path}/toggle", status=409)["detail"]
    assert "deprecated" in devices.patch(path, {"is_active": True}, status=409)["detail"]


def test_deleting_the_newest_version_frees_the_one_before(devices: Devices) -> None:
    first = devices.custom("static")
    path = f"{devices.functions}/{first['lf_id']}"
    second = devices.post(
        f"labeling-functions/{first['lf_id']}/versions", {"lf_config": first["lf_config"]}
    )
    assert devices.api.delete(path).status_code == 409
    assert devices.api.delete(f"{devices.functions}/{second['lf_id']}").status_code == 204
    freed = devices.get(f"labeling-functions/{first['lf_id']}")
    assert (freed["deprecated_at"], freed["deprecated_by_lf_id"]) == (None, None)
    assert devices.api.delete(path).status_code == 204


def test_what_a_function_needs_cannot_be_deleted_but_the_concept_can(devices: Devices) -> None:
    devices.custom("static")
    value = devices.values["PHONE"]
    for path in (f"rules/{devices.rule.r_id}", f"values/{value}"):
        refused = devices.reviewer.delete(f"{devices.root}/{path}")
        assert (refused.status_code, body(refused)["code"]) == (409, "in_use")
        assert "static" in body(refused)["detail"]
    assert devices.reviewer.delete(devices.root).status_code == 204
    assert not LabelingFunction.objects.exists()


def test_metrics_are_not_there_before_a_job_wrote_them(devices: Devices) -> None:
    lf = devices.custom("static")
    assert devices.get(f"labeling-functions/{lf['lf_id']}/metrics") == {
        "lf_id": lf["lf_id"], "name": "static", "version": 1, "estimated_accuracy": None,
        "coverage": None, "conflicts": None, "metrics_available": False,
    }  # fmt: skip


def test_the_function_of_another_concept_does_not_exist_here(
    devices: Devices, api: APIClient
) -> None:
    lf = devices.custom("static")
    other = body(api.post("/concepts", {"name": "other"}))["c_id"]
    assert api.get(f"/concepts/{other}/labeling-functions/{lf['lf_id']}").status_code == 404
    assert api.get("/concepts/99999/labeling-functions").status_code == 404


def drifting(devices: Devices) -> dict[str, Any]:
    """A function whose votes depend on the time of day, and so differ when it runs again."""
    label = devices.values["PHONE"]
    vote = f"{label} if datetime.datetime.now().microsecond % 2 else -1"
    return {
        "rule_id": devices.rule.r_id, "applicable_cv_ids": [label], "allowed_imports": ["datetime"],
        "code": f"import datetime\n\ndef labeling_function(row):\n    return {vote}",
    }  # fmt: skip


def test_an_approval_runs_the_code_first_and_says_what_it_did(devices: Devices) -> None:
    lf_id = devices.custom("static", condition="10 / row['n'] > 3")["lf_id"]
    numbers = devices.rule.table(["n"]).column("n").to_pylist()
    votes, faults = sum(0 < number < 4 for number in numbers), numbers.count(0)
    assert devices.approve(lf_id)["approval_trial"] == (
        f"Tried on 240 of 240 rows: {votes} votes, {240 - votes - faults} abstained, "
        f"{faults} failed; alike the second time."
    )
    changed = {"lf_config": {"code": devices.code("STATIC", "row['n'] > 2")}}
    assert devices.patch(f"labeling-functions/{lf_id}", changed)["approval_trial"] is None


def test_votes_that_depend_on_more_than_the_row_are_not_approved(devices: Devices) -> None:
    lf_id = devices.post("labeling-functions", {"name": "f", **drifting(devices)})["lf_id"]
    refused = devices.approve(lf_id, status=400)
    assert refused["code"] == "not_deterministic"
    assert "mac" in refused["detail"], "it names a row"
    assert not LabelingFunction.objects.get(lf_id=lf_id).is_active


def test_code_that_cannot_run_is_not_approved(devices: Devices) -> None:
    said = {"name": "f", "rule_id": devices.rule.r_id, "label": devices.values["PHONE"],
            "code": "RATIO = 1 / 0\n\ndef labeling_function(row):\n    return -1"}  # fmt: skip
    lf_id = devices.post("labeling-functions", said)["lf_id"]
    assert "ZeroDivisionError" in devices.approve(lf_id, status=400)["detail"]
    assert not LabelingFunction.objects.get(lf_id=lf_id).is_active


def test_without_rows_to_try_an_approval_says_so(devices: Devices) -> None:
    rule = Rule.objects.create(
        c=devices.concept, name="later", index=devices.index, sql_query="SELECT 1"
    )
    said = {**drifting(devices), "name": "f", "rule_id": rule.r_id}
    lf_id = devices.post("labeling-functions", said)["lf_id"]
    approved = devices.approve(lf_id)
    assert approved["is_active"] is True
    assert approved["approval_trial"].startswith("It could not be tried: The rule later is not")
    entry = LogEntry.objects.filter(object_id=str(lf_id), user__username="ada").latest("pk")
    assert "could not be tried" in entry.get_change_message()


def test_a_function_is_tried_before_it_is_saved_and_nothing_is_written(devices: Devices) -> None:
    code = devices.code("STATIC", "12 / row['n'] > 3")
    cv_ids = [devices.values["STATIC"], devices.values["PHONE"]]
    said = {"rule_id": devices.rule.r_id, "code": code, "applicable_cv_ids": cv_ids, "limit": 1000}
    tried = devices.post("labeling-functions/try", said, status=200)
    rows = devices.rule.table(["mac", "n"]).to_pylist()
    votes = [None if n == 0 else cv_ids[0] if n < 4 else -1 for n in (row["n"] for row in rows)]
    assert tried["votes"] == [
        {"sample_id": row["mac"], "cv_id": vote, "name": "STATIC" if vote == cv_ids[0] else None}
        for row, vote in zip(rows, votes, strict=True)
    ]
    assert tried["counts"] == [
        {"cv_id": cv_ids[0], "name": "STATIC", "rows": votes.count(cv_ids[0])},
        {"cv_id": cv_ids[1], "name": "PHONE", "rows": 0},
    ]
    assert (tried["rows"], tried["row_count"]) == (240, 240)
    assert (tried["abstained"], tried["fault_count"]) == (votes.count(-1), votes.count(None))
    fault = tried["faults"][0]
    assert (fault["sample_id"], fault["lines"]) == (rows[votes.index(None)]["mac"], [5])
    assert "ZeroDivisionError" in fault["message"]
    assert (tried["columns"], tried["deterministic"], tried["differing"]) == (["n"], True, None)
    assert 0 < tried["microseconds_per_row"] < tried["seconds"] * 1e6
    assert not LabelingFunction.objects.exists()
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize(
    ("config", "column"),
    [
        ({"lf_type": "template", "field": "n", "operator": "in", "value": [1, 3]}, "n"),
        ({"lf_type": "regex", "field": "mac", "pattern": "[13]$"}, "mac"),
    ],
)
def test_template_and_regex_functions_are_tried_too(
    devices: Devices, config: dict[str, Any], column: str
) -> None:
    label = devices.values["PHONE"]
    said = {"rule_id": devices.rule.r_id, "label": label, "limit": 1000, **config}
    tried = devices.post("labeling-functions/try", said, status=200)
    cells = devices.rule.table([column]).column(column).to_pylist()
    hits = [label if str(cell)[-1] in "13" else -1 for cell in cells]
    assert [vote["cv_id"] for vote in tried["votes"]] == hits
    assert (tried["columns"], tried["fault_count"]) == ([column], 0)


def test_a_saved_function_is_tried_as_it_is_or_as_it_would_be(devices: Devices) -> None:
    lf = devices.custom("static")
    path = f"labeling-functions/{lf['lf_id']}"
    numbers = devices.rule.table(["n"]).column("n").to_pylist()
    as_it_is = devices.post(f"{path}/try", {"limit": 240}, status=200)
    assert as_it_is["counts"][0]["rows"] == sum(number > 1 for number in numbers)
    config = {"code": devices.code("STATIC", "row['n'] > 3")}
    would_be = devices.post(f"{path}/try", {"limit": 240, "lf_config": config}, status=200)
    assert would_be["counts"][0]["rows"] == sum(number > 3 for number in numbers)
    assert devices.get(path) == lf


def test_rows_to_try_are_spread_over_the_whole_rule(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tippers.storage.ROW_GROUP_ROWS", 50)
    table = devices.rule.table()
    pieces = pa.concat_tables([table.slice(start, 25) for start in range(0, 240, 25)])
    publish(devices.rule, pieces)
    said = {"rule_id": devices.rule.r_id, "label": devices.values["PHONE"], "lf_type": "template",
            "field": "n", "operator": ">", "value": 1}  # fmt: skip
    for limit, step in ((10, 24), (240, 1)):
        tried = devices.post("labeling-functions/try", {**said, "limit": limit}, status=200)
        macs = [vote["sample_id"] for vote in tried["votes"]]
        assert macs == [f"mac{number:03}" for number in range(0, 240, step)]
    by_default = devices.post("labeling-functions/try", said, status=200)
    assert (by_default["rows"], len(set(map(str, by_default["votes"])))) == (100, 100)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"code": None}, "code"),
        ({"code": "import os\n\ndef labeling_function(row):\n    return 1"}, "code"),
        ({"pattern": "a"}, "pattern"),
        ({"lf_type": "regex"}, "code"),
        ({"lf_type": "sql"}, "lf_type"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"label": 99_999}, "label"),
        ({"rule_id": 99_999}, "rule_id"),
        ({"allowed_imports": ["os"]}, "allowed_imports"),
        ({"name": "x"}, "name"),
    ],
)
def test_a_try_of_bad_input_names_its_field(
    devices: Devices, change: dict[str, object], field: str
) -> None:
    said = {"rule_id": devices.rule.r_id, "applicable_cv_ids": [devices.values["PHONE"]],
            "code": "def labeling_function(row):\n    return -1"} | change  # fmt: skip
    refused = devices.post("labeling-functions/try", said, status=400)
    assert field in refused["errors"], refused


def test_a_try_needs_rows_and_ends_in_time(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = devices.values["PHONE"]
    forever = "def labeling_function(row):\n    while True:\n        pass"
    said = {"rule_id": devices.rule.r_id, "label": label, "code": forever}
    monkeypatch.setattr("labeling.sandbox.host.CHUNK_SECONDS", 1.0)
    assert "took longer" in devices.post("labeling-functions/try", said, status=400)["detail"]
    said["rule_id"] = Rule.objects.create(
        c=devices.concept, name="later", index=devices.index, sql_query="SELECT 1"
    ).r_id
    refused = devices.post("labeling-functions/try", said, status=409)
    assert "The rule later is not materialized" in refused["detail"]


def test_trying_takes_the_permission_to_write_functions_and_is_throttled(
    devices: Devices, viewer: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lf_id = devices.custom("static")["lf_id"]
    for path in ("try", f"{lf_id}/try"):
        assert viewer.post(f"{devices.functions}/{path}", {}).status_code == 403
    monkeypatch.setattr(TryThrottle, "rate", "2/min")
    answers = [devices.api.post(f"{devices.functions}/try", {}).status_code for _ in range(3)]
    assert answers == [400, 400, 429]
    assert devices.api.post(f"{devices.functions}/{lf_id}/try", {}).status_code == 429
