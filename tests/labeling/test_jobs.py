"""Snorkel jobs over REST, from votes to labels; the runs are performed in this process."""

import csv
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from concepts.models import Rule
from labeling import label_jobs, result_pages
from labeling.models import LabelingFunction, SnorkelJob
from labeling.result_pages import Choice
from tests.conftest import body
from tests.labeling.conftest import DEVICES, Devices, publish
from tippers import storage
from tippers.runs.models import RunLog


def launch(devices: Devices, lf_ids: list[int], **changes: Any) -> dict[str, Any]:
    return {
        "selectedIndex": devices.index.index_id,
        "selectedRules": [devices.rule.r_id],
        "selectedLFs": lf_ids,
        **changes,
    }


def test_labels_come_out_for_every_entity_of_the_index(devices: Devices) -> None:
    results = devices.label(devices.four_functions())
    assert (results["status"], results["output_type"]) == ("COMPLETED", "softmax")
    assert results["class_cv_ids"] == sorted(devices.values.values())
    predictions = results["predictions"]
    assert [p["sample_id"] for p in predictions] == [f"mac{n:03}" for n in range(DEVICES)]
    labelled = [p for p in predictions if p["predicted_class"] != -1]
    right = sum(devices.truth[p["sample_id"]] == p["predicted_class"] for p in labelled)
    assert right / len(labelled) > 0.9
    names = {cv_id: name for name, cv_id in devices.values.items()}
    for p in labelled:
        assert p["predicted_name"] == names[p["predicted_class"]]
        assert p["confidence"] == max(p["probs"])
        assert sum(p["probs"]) == pytest.approx(1)
        assert results["class_cv_ids"][p["probs"].index(max(p["probs"]))] == p["predicted_class"]
    summary = results["summary"]
    assert summary["total_samples"] == DEVICES
    assert summary["labelled"] == len(labelled)
    assert summary["abstained"] == DEVICES - len(labelled)
    assert summary["avg_confidence"] == pytest.approx(
        sum(p["confidence"] for p in labelled) / len(labelled)
    )
    assert sum(summary["class_balance"].values()) == pytest.approx(1)


def test_entities_without_a_vote_have_no_label(devices: Devices) -> None:
    never = devices.approved("never", "STATIC", "False")
    results = devices.label([never])
    assert {p["predicted_class"] for p in results["predictions"]} == {-1}
    assert all(p["confidence"] is None and p["probs"] is None for p in results["predictions"])
    assert results["summary"]["labelled"] == 0
    assert results["summary"]["avg_confidence"] is None


def test_the_parquet_file_holds_what_the_results_show(devices: Devices) -> None:
    results = devices.label(devices.four_functions())
    job_id = results["job_id"]
    assert f"/snorkel_results/job_{job_id}/" in results["result_path"]
    table = storage.read_table(storage.key_of(results["result_path"]))
    assert table.column_names == [
        "sample_id", "predicted_label", "confidence", "prob_class_0", "prob_class_1",
        "prob_class_2",
    ]  # fmt: skip
    shown = [
        (p["sample_id"], p["predicted_class"], p["confidence"]) for p in results["predictions"]
    ]
    rows = table.select(["sample_id", "predicted_label", "confidence"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == shown


def test_hard_labels_have_no_probabilities(devices: Devices) -> None:
    results = devices.label(devices.four_functions(), output_type="hard_labels")
    assert "probs" not in results["predictions"][0]
    assert {p["confidence"] for p in results["predictions"]} <= {1.0, None}
    table = storage.read_table(storage.key_of(results["result_path"]))
    assert table.column_names == ["sample_id", "predicted_label", "confidence"]


def test_results_are_paged(devices: Devices) -> None:
    job_id = devices.label(devices.four_functions())["job_id"]
    response = devices.api.get(f"{devices.root}/snorkel/jobs/{job_id}/results?skip=5&limit=2")
    assert [p["sample_id"] for p in body(response)["predictions"]] == ["mac005", "mac006"]
    assert response.headers["X-Total-Count"] == str(DEVICES)
    assert "limit" in devices.get(f"snorkel/jobs/{job_id}/results?limit=0", status=400)["errors"]


def test_a_page_reads_only_the_row_groups_that_hold_it(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_pages, "ROW_GROUP_ROWS", 50)
    shown = devices.label(devices.four_functions())
    job = SnorkelJob.objects.get(job_id=shown["job_id"])
    assert job.result_path is not None
    with storage.open_parquet(storage.key_of(job.result_path)) as file:
        assert file.num_row_groups == -(-DEVICES // 50)
    read: list[int] = []
    read_row_group = pq.ParquetFile.read_row_group

    def watched(file: Any, group: int) -> Any:
        read.append(group)
        return read_row_group(file, group)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", watched)
    for skip, limit, groups in (
        (0, 50, [0]), (49, 2, [0, 1]), (50, 1, [1]), (120, 100, [2, 3, 4]), (239, 9, [4]),
        (240, 5, []), (1000, 5, []),
    ):  # fmt: skip
        found, total = label_jobs.results(job, Choice(), skip=skip, limit=limit)
        assert found["predictions"] == shown["predictions"][skip : skip + limit]
        assert (total, read) == (DEVICES, groups)
        read.clear()


def test_metrics_are_written_back_to_the_functions(devices: Devices) -> None:
    lf_ids = devices.four_functions()
    analysis = {a["lf_id"]: a for a in devices.label(lf_ids)["lf_analysis"]}
    assert list(analysis) == lf_ids
    for lf_id in lf_ids:
        metrics = devices.get(f"labeling-functions/{lf_id}/metrics")
        assert metrics["metrics_available"] is True
        assert metrics["estimated_accuracy"] == analysis[lf_id]["learned_weight"]
        assert metrics["coverage"] == analysis[lf_id]["coverage"]
        assert metrics["conflicts"] == round(analysis[lf_id]["conflicts"] * DEVICES)
    edited = {"lf_config": {"code": devices.code("STATIC", "row['rooms'] < 2")}}
    devices.patch(f"labeling-functions/{lf_ids[0]}", edited)
    assert not devices.get(f"labeling-functions/{lf_ids[0]}/metrics")["metrics_available"]


def test_one_function_is_a_majority_of_one_and_the_job_says_so(devices: Devices) -> None:
    results = devices.label([devices.approved("one_room", "STATIC", "row['rooms'] == 1")])
    assert "Majority vote was used" in results["notes"][0]
    assert {p["predicted_class"] for p in results["predictions"]} == {
        -1, devices.values["STATIC"],
    }  # fmt: skip


def test_a_fault_that_no_database_takes_is_shown_without_its_nul(devices: Devices) -> None:
    lf_ids = devices.four_functions()
    said = {
        "name": "nul", "rule_id": devices.rule.r_id,
        "applicable_cv_ids": list(devices.values.values()),
        "code": (
            "def labeling_function(row):\n    if row['n']:\n        return -1\n"
            "    raise ValueError(chr(0) + 'x')"
        ),
    }  # fmt: skip
    lf_id = devices.post("labeling-functions", said)["lf_id"]
    devices.approve(lf_id)
    (analysis,) = [a for a in devices.label([*lf_ids, lf_id])["lf_analysis"] if a["faults"]]
    assert "ValueError: \N{REPLACEMENT CHARACTER}x" in analysis["first_fault"]


def test_faults_are_counted_and_shown(devices: Devices) -> None:
    lf_ids = devices.four_functions()
    faulty = devices.approved("faulty", "STATIC", "1 / row['n'] > 0.9")
    (analysis,) = [a for a in devices.label([*lf_ids, faulty])["lf_analysis"] if a["faults"]]
    zeros = devices.rule.table(["n"]).column("n").to_pylist().count(0)
    assert (analysis["name"], analysis["faults"], analysis["rows"]) == ("faulty", zeros, DEVICES)
    assert "ZeroDivisionError" in analysis["first_fault"]


def test_a_job_records_what_held_its_code(devices: Devices) -> None:
    results = devices.label(devices.four_functions())
    layers = results["sandbox_layers"]
    assert {"limits", "no_new_privs"} <= set(layers)
    job = SnorkelJob.objects.get(job_id=results["job_id"])
    said = RunLog.objects.get(run=job.run, message__startswith="labeling code is held by").message
    assert said.startswith(f"labeling code is held by: {', '.join(layers)}")


def test_a_function_that_fails_on_most_rows_fails_the_job_by_name(devices: Devices) -> None:
    broken = devices.approved("broken", "STATIC", "row['no_such_column'] > 1")
    results = devices.label([broken])
    assert results["status"] == "FAILED"
    assert "broken failed on" in results["message"]
    assert "no_such_column" in results["message"]
    job = devices.get(f"snorkel/jobs/{results['job_id']}")
    assert "KeyError" in job["error_message"]
    assert job["result_path"] is None
    assert job["completed_at"] is not None
    assert not list(storage.listed("snorkel_results/"))


def test_launching_needs_everything_ready_and_names_what_is_not(devices: Devices) -> None:
    ready, pending = devices.four_functions()[0], devices.custom("pending")["lf_id"]
    static = {"name": "s", "rule_id": devices.rule.r_id, "field": "n", "operator": ">", "value": 1,
              "label": devices.values["STATIC"]}  # fmt: skip
    single = devices.post("labeling-functions/template", static)["lf_id"]
    for said, field in [
        (launch(devices, []), "selectedLFs"),
        (launch(devices, [99_999]), "selectedLFs"),
        (launch(devices, [ready, pending]), "selectedLFs"),
        (launch(devices, [single]), "selectedLFs"),
        (launch(devices, [ready], selectedIndex=99_999), "selectedIndex"),
        (launch(devices, [ready], selectedRules=[99_999]), "selectedRules"),
        (launch(devices, [ready], snorkel={"epochs": 0}), "snorkel"),
        (launch(devices, [ready], snorkel={"output_type": "soft"}), "snorkel"),
        (launch(devices, [ready], snorkel={"sample_size": 0}), "snorkel"),
    ]:
        assert field in devices.post("snorkel/run", said, status=400)["errors"], said
    devices.post(f"labeling-functions/{ready}/toggle", status=200)
    assert (
        "not active" in devices.post("snorkel/run", launch(devices, [ready]), status=400)["detail"]
    )
    devices.post(f"labeling-functions/{ready}/toggle", status=200)
    devices.rule.change(sql_query="SELECT 2")
    assert "not materialized" in devices.post("snorkel/run", launch(devices, [ready]), status=400)[
        "detail"
    ]  # fmt: skip
    devices.index.change(sql_query="SELECT 2")
    refused = devices.post("snorkel/run", launch(devices, [ready]), status=400)
    assert "selectedIndex" in refused["errors"]
    assert not SnorkelJob.objects.exists()


def test_what_changed_between_launch_and_work_fails_the_job(devices: Devices) -> None:
    lf_ids = devices.four_functions()
    job = devices.post("snorkel/run", launch(devices, lf_ids))
    LabelingFunction.objects.filter(lf_id=lf_ids[0]).update(
        lf_config={"code": devices.code("STATIC", "row['rooms'] > 0"), "allowed_imports": []}
    )
    devices.perform_all()
    assert "one_room is not approved" in devices.get(f"snorkel/jobs/{job['job_id']}")[
        "error_message"
    ]  # fmt: skip


def test_a_jobs_life_on_the_wire(devices: Devices) -> None:
    lf_ids = devices.four_functions()
    job = devices.post("snorkel/run", launch(devices, lf_ids, snorkel={"epochs": 20}))
    path = f"snorkel/jobs/{job['job_id']}"
    assert job["config"] == {"epochs": 20, "lr": 0.01, "sample_size": None, "seed": 42}
    assert (job["rule_ids"], job["lf_ids"]) == ([devices.rule.r_id], lf_ids)
    assert (job["status"], devices.get(path)["status"]) == ("RUNNING", "PENDING")
    assert devices.get(f"{path}/results") == {
        "job_id": job["job_id"], "status": "PENDING",
        "message": "Job is PENDING. Results not available yet.",
    }  # fmt: skip
    assert "cancel it first" in body(devices.api.delete(f"{devices.root}/{path}"))["detail"]
    devices.perform_all()
    done = devices.get(path)
    assert (done["status"], done["error_message"]) == ("COMPLETED", None)
    run = body(devices.api.get(f"/dagster/runs/{job['dagster_run_id']}"))
    assert run["status"] == "SUCCESS"
    assert "ended already" in devices.post(f"{path}/cancel", status=409)["detail"]
    newer = devices.post("snorkel/run", launch(devices, lf_ids))
    assert [j["job_id"] for j in devices.get("snorkel/jobs")] == [newer["job_id"], job["job_id"]]


def test_a_cancelled_job_stays_cancelled(devices: Devices) -> None:
    job = devices.post("snorkel/run", launch(devices, devices.four_functions()))
    path = f"snorkel/jobs/{job['job_id']}"
    assert devices.post(f"{path}/cancel", status=200)["status"] == "CANCELLED"
    devices.perform_all()
    assert devices.get(path)["status"] == "CANCELLED"
    assert devices.get(f"{path}/results")["message"] == "Job is CANCELLED; it has no results."
    assert devices.reviewer.delete(f"{devices.root}/{path}").status_code == 204


def test_deleting_a_job_takes_its_result_along(
    devices: Devices, django_capture_on_commit_callbacks: Any
) -> None:
    results = devices.label(devices.four_functions())
    key = storage.key_of(results["result_path"])
    assert storage.exists(key)
    with django_capture_on_commit_callbacks(execute=True):
        path = f"{devices.root}/snorkel/jobs/{results['job_id']}"
        assert devices.reviewer.delete(path).status_code == 204
    assert not storage.exists(key)


def test_a_result_is_stale_once_the_index_has_other_content(devices: Devices) -> None:
    job_id = devices.label(devices.four_functions())["job_id"]
    assert devices.get(f"snorkel/jobs/{job_id}/results")["is_stale"] is False
    publish(devices.index, pa.table({"mac": ["mac001", "new"]}))
    assert devices.get(f"snorkel/jobs/{job_id}/results")["is_stale"] is True


# --- truth ------------------------------------------------------------------------------------


def three_templates(devices: Devices) -> list[int]:
    """Functions that run no code, so that nothing needs approval."""
    rooms = {"STATIC": ("==", 1), "LAPTOP": ("in", [2, 3, 4]), "PHONE": (">", 3)}
    lf_ids = []
    for value, (operator, number) in rooms.items():
        said = {
            "name": value, "rule_id": devices.rule.r_id, "field": "rooms", "operator": operator,
            "value": number, "label": devices.values[value],
        }  # fmt: skip
        lf_ids.append(devices.post("labeling-functions/template", said)["lf_id"])
    return lf_ids


def rule_of(devices: Devices, name: str, table: pa.Table) -> Rule:
    rule = Rule.objects.create(
        c=devices.concept, name=name, index=devices.index, sql_query="SELECT 1"
    )
    publish(rule, table)
    return rule


def test_labels_are_compared_with_a_rule_that_knows_the_truth(devices: Devices) -> None:
    names = {cv_id: name for name, cv_id in devices.values.items()}
    some = dict(list(devices.truth.items())[:100])
    said = pa.table({"mac": list(some), "kind": [names[cv_id] for cv_id in some.values()]})
    checked = rule_of(devices, "checked", said)
    lf_ids = three_templates(devices)
    without = devices.label(lf_ids)
    assert without["summary"]["truth_rows"] is None
    assert without["summary"]["label_model_accuracy"] is None
    assert {a["empirical_accuracy"] for a in without["lf_analysis"]} == {None}

    body = launch(devices, lf_ids, snorkel={"epochs": 50}, truth_rule_id=checked.r_id)
    job = devices.post("snorkel/run", body)
    assert job["truth_rule_id"] == checked.r_id
    devices.perform_all()
    results = devices.get(f"snorkel/jobs/{job['job_id']}/results?limit=1000")
    assert results["predictions"] == without["predictions"]  # it trains nothing
    right = [
        p["predicted_class"] == some[p["sample_id"]]
        for p in results["predictions"]
        if p["sample_id"] in some and p["predicted_class"] != -1
    ]
    assert results["summary"]["truth_rows"] == 100
    assert results["summary"]["label_model_accuracy"] == pytest.approx(sum(right) / len(right))
    rooms = dict(zip(*devices.rule.table(["mac", "rooms"]).to_pydict().values(), strict=True))
    votes = {"STATIC": {1}, "LAPTOP": {2, 3, 4}, "PHONE": set(range(4, 99))}
    for analysis in results["lf_analysis"]:
        cv_id = devices.values[analysis["name"]]
        voted = [mac for mac in some if rooms[mac] in votes[analysis["name"]]]
        accuracy = sum(some[mac] == cv_id for mac in voted) / len(voted)
        assert analysis["empirical_accuracy"] == pytest.approx(accuracy)
        metrics = devices.get(f"labeling-functions/{analysis['lf_id']}/metrics")
        assert metrics["estimated_accuracy"] == analysis["learned_weight"]

    assert results["is_stale"] is False
    assert devices.reviewer.delete(f"{devices.root}/rules/{checked.r_id}").status_code == 409
    publish(checked, said.slice(0, 50))
    assert devices.get(f"snorkel/jobs/{job['job_id']}/results")["is_stale"] is True
    nodes = {node["id"]: node for node in devices.get("lineage")["nodes"]}
    reason = nodes[f"snorkel_job:{job['job_id']}"]["stale_reason"]
    assert reason == "Since it ran, the rule checked changed."
    assert nodes[f"snorkel_job:{without['job_id']}"]["stale_reason"] is None


def test_a_rule_tells_the_truth_in_one_column_that_names_values(devices: Devices) -> None:
    lf_ids = three_templates(devices)
    bare = rule_of(devices, "bare", pa.table({"mac": ["mac001"]}))
    other = rule_of(devices, "other", pa.table({"host": ["x"], "kind": ["STATIC"]}))
    vague = rule_of(devices, "vague", pa.table({"mac": ["mac001"], "kind": ["TOASTER"]}))
    unmade = Rule.objects.create(
        c=devices.concept, name="unmade", index=devices.index, sql_query="SELECT 1"
    )
    for rule_id, sentence in [
        (devices.rule.r_id, "habits has: n, rooms, hours"),
        (bare.r_id, "bare has: none"),
        (other.r_id, "no column mac; it has: host, kind"),
        (unmade.r_id, "not materialized"),
        (99_999, "none with the id 99999"),
    ]:
        body = launch(devices, lf_ids, truth_rule_id=rule_id)
        said = devices.post("snorkel/run", body, status=400)["errors"]["truth_rule_id"]
        assert sentence in said[0]
    assert not SnorkelJob.objects.exists()
    job = devices.post("snorkel/run", launch(devices, lf_ids, truth_rule_id=vague.r_id))
    devices.perform_all()
    failed = devices.get(f"snorkel/jobs/{job['job_id']}")
    assert failed["status"] == "FAILED"
    assert "kind of the rule vague says TOASTER" in failed["error_message"]


# --- results ----------------------------------------------------------------------------------


def test_results_are_filtered_ordered_and_downloaded(devices: Devices) -> None:
    shown = devices.label(three_templates(devices))
    path = f"{devices.root}/snorkel/jobs/{shown['job_id']}/results"
    static = devices.values["STATIC"]
    sure = sorted(
        (p for p in shown["predictions"] if p["predicted_class"] == static),
        key=lambda p: -p["confidence"],
    )
    least = sure[len(sure) // 2]["confidence"]
    query = f"predicted_class={static}&min_confidence={least}&order=-confidence&skip=1&limit=3"
    response = devices.api.get(f"{path}?{query}")
    sure = [p for p in sure if p["confidence"] >= least]
    assert body(response)["predictions"] == sure[1:4]
    assert response.headers["X-Total-Count"] == str(len(sure))
    assert body(response)["summary"] == shown["summary"]
    none = devices.api.get(f"{path}?predicted_class=-1")
    assert none.headers["X-Total-Count"] == str(shown["summary"]["abstained"])
    for wrong, field in [
        ("predicted_class=99999", "predicted_class"), ("predicted_class=x", "predicted_class"),
        ("predicted_class=-2", "predicted_class"), ("min_confidence=1.1", "min_confidence"),
        ("min_confidence=nan", "min_confidence"), ("min_confidence=high", "min_confidence"),
        ("order=sample_id", "order"),
    ]:  # fmt: skip
        answer = devices.api.get(f"{path}?{wrong}")
        assert (answer.status_code, list(body(answer)["errors"])) == (400, [field]), wrong

    parquet: Any = devices.api.get(f"{path}/download")
    name = f"labels_{shown['job_id']}"
    assert parquet["Content-Disposition"] == f'attachment; filename="{name}.parquet"'
    assert parquet["Content-Type"] == "application/vnd.apache.parquet"
    stored = storage.read_bytes(storage.key_of(shown["result_path"]))
    assert b"".join(parquet.streaming_content) == stored
    # Whatever the client accepts: a file has the type that was asked for.
    as_json = {"accept": "application/json"}
    text: Any = devices.api.get(f"{path}/download?format=csv", headers=as_json)
    assert text["Content-Disposition"] == f'attachment; filename="{name}.csv"'
    assert text["Content-Type"] == "text/csv"
    rows = csv.DictReader(io.StringIO(b"".join(text.streaming_content).decode()))
    assert [(r["sample_id"], int(r["predicted_label"])) for r in rows] == [
        (p["sample_id"], p["predicted_class"]) for p in shown["predictions"]
    ]
    refused = devices.api.get(f"{path}/download?format=xml")
    assert (refused.status_code, list(body(refused)["errors"])) == (400, ["format"])


def test_there_is_nothing_to_download_before_the_job_is_completed(devices: Devices) -> None:
    job = devices.post("snorkel/run", launch(devices, three_templates(devices)))
    path = f"snorkel/jobs/{job['job_id']}/results"
    assert "Results not available yet" in devices.get(f"{path}/download", status=409)["detail"]
    waiting = devices.api.get(f"{devices.root}/{path}?order=confidence")
    assert body(waiting)["status"] == "PENDING"
    assert "X-Total-Count" not in waiting.headers
