"""Snorkel jobs: launch one, do its work, show its result."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction

from concepts.models import Concept, ConceptValue, Index, Rule
from labeling import policy
from labeling.models import LabelingFunction, OutputType, SnorkelJob
from tippers import storage
from tippers.errors import CannotBeDone
from tippers.runs import engine
from tippers.runs.claims import LostLease
from tippers.runs.engine import RunHandle, Stopped

if TYPE_CHECKING:
    import pyarrow as pa

    from labeling.label_model import FunctionAnalysis, Labels
    from labeling.votes import Cast, LabelMatrix

SEED = 42
ROW_GROUP_ROWS = 20_000  # of a result: what is read for a page of it


def launch(
    concept: Concept,
    *,
    index: Index,
    rules: Sequence[Rule],
    functions: Sequence[LabelingFunction],
    config: dict[str, Any],
    output_type: str,
    user: AbstractBaseUser | AnonymousUser | None,
) -> SnorkelJob:
    """Start a job. CannotBeDone names what is not ready: the index, a rule, a function."""
    if not index.is_materialized:
        raise CannotBeDone(
            f"The index {index.name} is not materialized; materialize it first.",
            field="selectedIndex",
        )
    for rule in rules:
        _require_materialized(rule, "selectedRules")
    for lf in functions:
        _require_ready(lf)
        _require_materialized(lf.rule, "selectedLFs")
    _classes(functions)
    with transaction.atomic():
        job = SnorkelJob.objects.create(
            c=concept,
            index=index,
            rule_ids=[rule.r_id for rule in rules],
            lf_ids=[lf.lf_id for lf in functions],
            config=config,
            output_type=output_type,
        )
        job.run = engine.launch(
            "snorkel_training",
            key=f"snorkel_training:{job.job_id}",
            args={"job_id": job.job_id},
            created_by=user,
        )
        job.save(update_fields=["run"])
    return job


def train(job: SnorkelJob, run: RunHandle) -> None:
    """The work of a run: votes, label model, Parquet; current only once the run has finished."""
    from labeling.label_model import analyse, label
    from labeling.votes import distinct_keys, label_matrix

    functions = _functions(job)
    classes = _classes(functions)
    inputs = job.inputs_now()
    keys = distinct_keys(job.index.table([job.index.key_column]), job.index.key_column)
    run.log(f"{len(keys)} entities, {len(functions)} labeling functions, {len(classes)} classes")
    matrix = label_matrix(keys, [_definition(lf) for lf in functions], _rule_tables(functions), run)
    for cast in matrix.casts:
        if cast.faults:
            run.log(
                f"{cast.name} failed on {cast.faults} of {cast.rows} rows: {cast.first_fault}",
                "WARNING",
            )
    run.progress(len(functions), len(functions), "labeling functions", "training the label model")
    labels = label(
        matrix.votes,
        classes,
        epochs=job.config["epochs"],
        lr=job.config["lr"],
        seed=job.config["seed"],
        sample_size=job.config["sample_size"],
    )
    for note in labels.notes:
        run.log(note, "WARNING")
    analysis = analyse(matrix.votes, classes, labels.weights)
    table = _result_table(matrix, labels, job.output_type)
    key = f"snorkel_results/job_{job.job_id}/{run.token}.parquet"
    storage.put_bytes(key, _as_parquet(table))
    try:
        with run.finishing():
            SnorkelJob.objects.filter(pk=job.pk).update(
                result_path=storage.uri(key),
                inputs=inputs,
                report=_report(table, matrix, labels, analysis),
            )
            for lf, found in zip(functions, analysis, strict=True):
                # An edit made meanwhile is another function: these are not its numbers.
                LabelingFunction.objects.filter(pk=lf.pk, lf_config=lf.lf_config).update(
                    estimated_accuracy=found.learned_weight,
                    coverage=found.coverage,
                    conflicts=found.conflict_rows,
                )
    except (CannotBeDone, LostLease, Stopped):
        storage.delete(key)
        raise


def results(job: SnorkelJob, *, skip: int, limit: int) -> dict[str, Any]:
    """What the results endpoint answers: predictions from `skip`, at most `limit` of them."""
    if not job.is_completed or job.result_path is None or job.report is None:
        return not_yet(job.job_id, job.status, job.error_message)
    report = job.report
    table = _page(storage.key_of(job.result_path), skip, limit)
    names = dict(zip(report["class_cv_ids"], report["class_names"], strict=True))
    predictions = []
    for row in table.to_pylist():
        predicted = row["predicted_label"]
        prediction = {
            "sample_id": row["sample_id"],
            "predicted_class": predicted,
            "predicted_name": names.get(predicted),
            "confidence": row["confidence"],
        }
        if job.output_type == OutputType.SOFTMAX:
            columns = (f"prob_class_{number}" for number in range(len(names)))
            probs = [row[column] for column in columns]
            prediction["probs"] = None if None in probs else probs
        predictions.append(prediction)
    return {
        "job_id": job.job_id,
        "status": job.status,
        "output_type": job.output_type,
        "result_path": job.result_path,
        "is_stale": job.is_stale,
        **report,
        "predictions": predictions,
    }


def _page(key: str, skip: int, limit: int) -> "pa.Table":
    """At most `limit` rows from `skip`; only the row groups that hold them are read."""
    with storage.open_parquet(key) as file:
        groups, before, seen = [], 0, 0
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            if seen + rows <= skip:
                before += rows
            elif seen < skip + limit:
                groups.append(number)
            seen += rows
        return file.read_row_groups(groups).slice(skip - before, limit)


def not_yet(job_id: int, status: str, error: str | None) -> dict[str, Any]:
    """The results endpoint's answer for a job without a result."""
    why = f"Job is {status}. Results not available yet."
    if status in {"FAILED", "CANCELLED"}:
        why = f"Job is {status}; it has no results." + (f" {error}" if error else "")
    return {"job_id": job_id, "status": status, "message": why}


def _require_materialized(rule: Rule, field: str) -> None:
    if not rule.is_materialized:
        raise CannotBeDone(
            f"The rule {rule.name} is not materialized; materialize it first.", field=field
        )


def _require_ready(lf: LabelingFunction) -> None:
    if not lf.is_approved:
        raise CannotBeDone(f"{lf.name} is not approved.", field="selectedLFs")
    if not lf.is_active:
        raise CannotBeDone(f"{lf.name} is not active.", field="selectedLFs")


def _classes(functions: Sequence[LabelingFunction]) -> list[int]:
    """The classes in their order: every value that one of the functions may vote, by id."""
    classes = sorted({cv_id for lf in functions for cv_id in lf.applicable_cv_ids})
    if len(classes) < 2:
        raise CannotBeDone(
            "The labeling functions can vote for one concept value only; a label model needs at "
            "least two to choose from.",
            field="selectedLFs",
        )
    return classes


def _functions(job: SnorkelJob) -> list[LabelingFunction]:
    """The job's functions in its order, as they are now: still approved, active and acceptable."""
    there = LabelingFunction.objects.select_related("rule__index").prefetch_related("applicable")
    by_id = {lf.lf_id: lf for lf in there.filter(lf_id__in=job.lf_ids)}
    for lf_id in job.lf_ids:
        if lf_id not in by_id:
            raise CannotBeDone(f"The labeling function {lf_id} was deleted.")
        _require_ready(by_id[lf_id])
        _require_materialized(by_id[lf_id].rule, "selectedLFs")
    return [by_id[lf_id] for lf_id in job.lf_ids]


def _definition(lf: LabelingFunction) -> Any:
    """The function for voting. Its code is judged again: the policy may have become stricter."""
    from labeling.votes import Function

    columns = None
    if lf.runs_user_code:
        values = ConceptValue.objects.filter(c_id=lf.c_id)
        try:
            columns = policy.judge(
                lf.code,
                allowed_imports=lf.lf_config.get("allowed_imports", []),
                values={value.cv_id: value.name for value in values},
            ).columns
        except policy.CodeRefused as refused:
            raise CannotBeDone(f"{lf.name}: {refused.detail}") from refused
    return Function(
        lf.lf_id, lf.name, lf.lf_type, lf.lf_config, lf.applicable_cv_ids, lf.rule_id, columns
    )


def _rule_tables(functions: Sequence[LabelingFunction]) -> dict[int, Any]:
    from labeling.votes import RuleTable

    rules = {lf.rule_id: lf.rule for lf in functions}
    return {
        r_id: RuleTable(rule.name, rule.table(), rule.key_column) for r_id, rule in rules.items()
    }


def _result_table(matrix: "LabelMatrix", labels: "Labels", output_type: str) -> "pa.Table":
    """sample_id, predicted_label (cv_id or -1), confidence, and prob_class_0... for softmax."""
    import numpy as np
    import pyarrow as pa

    confidence = labels.confidence
    if output_type == OutputType.HARD_LABELS:
        confidence = np.where(np.isnan(confidence), np.nan, 1.0)
    columns = {
        "sample_id": matrix.keys,
        "predicted_label": pa.array(labels.labels, pa.int64()),
        "confidence": pa.array(confidence, pa.float64(), from_pandas=True),
    }
    if output_type == OutputType.SOFTMAX:
        for number in range(len(labels.classes)):
            columns[f"prob_class_{number}"] = pa.array(
                labels.probabilities[:, number], pa.float64(), from_pandas=True
            )
    return pa.table(columns)


def _as_parquet(table: "pa.Table") -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy", row_group_size=ROW_GROUP_ROWS)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _report(
    table: "pa.Table",
    matrix: "LabelMatrix",
    labels: "Labels",
    analysis: "Sequence[FunctionAnalysis]",
) -> dict[str, Any]:
    import numpy as np
    import pyarrow.compute as pc

    names = dict(ConceptValue.objects.filter(cv_id__in=labels.classes).values_list("cv_id", "name"))
    labelled = int((labels.labels != -1).sum())
    average = pc.mean(table.column("confidence")).as_py()
    return {
        "class_cv_ids": labels.classes,
        "class_names": [names[cv_id] for cv_id in labels.classes],
        "summary": {
            "total_samples": table.num_rows,
            "labelled": labelled,
            "abstained": table.num_rows - labelled,
            "avg_confidence": average,
            "class_balance": {
                names[cv_id]: int(np.sum(labels.labels == cv_id)) / labelled if labelled else 0.0
                for cv_id in labels.classes
            },
        },
        "lf_analysis": [
            _analysis(cast, found) for cast, found in zip(matrix.casts, analysis, strict=True)
        ],
        "notes": labels.notes,
    }


def _analysis(cast: "Cast", found: "FunctionAnalysis") -> dict[str, Any]:
    return {
        "lf_id": cast.lf_id,
        "name": cast.name,
        **asdict(found),
        "rows": cast.rows,
        "faults": cast.faults,
        "first_fault": cast.first_fault or None,
    }


__all__ = ["SEED", "launch", "not_yet", "results", "train"]
