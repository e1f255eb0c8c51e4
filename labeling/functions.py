"""Labeling functions as definitions: create, change, try, judge, replace by a new version, delete.

Each act leaves its entry in the audit trail, in the same transaction, whoever asked for it and how.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction
from django.utils import timezone

from concepts.models import Concept, ConceptValue, Rule
from concepts.preview import as_json
from labeling import policy
from labeling.models import ABSTAIN, LabelingFunction, LFType
from tippers import audit, storage
from tippers.audit import Act
from tippers.errors import CannotBeDone, NotPossibleNow

if TYPE_CHECKING:
    import pyarrow as pa

User = AbstractBaseUser | AnonymousUser

TRIED_ROWS = 100
MOST_TRIED_ROWS = 1_000
APPROVAL_ROWS = 2_000
TRIAL_SEED = 1  # of the order in which the rows come the second time


def values_of(concept: Concept) -> dict[int, str]:
    """The concept's values, id -> name, in their order."""
    return dict(ConceptValue.objects.filter(c=concept).values_list("cv_id", "name"))


def generated_code(concept: Concept, cv_ids: Sequence[int]) -> str:
    """Code to start from for a function that may vote these values."""
    return policy.template(values_of(concept), cv_ids)


def create(
    concept: Concept,
    *,
    name: str,
    rule: Rule,
    lf_type: str,
    config: dict[str, Any],
    applicable: Sequence[ConceptValue],
    user: User,
    cv: ConceptValue | None = None,
    parent: LabelingFunction | None = None,
) -> LabelingFunction:
    """Save a new function; custom code is judged, and waits for approval.

    With a `parent` it is that one's next version, and the parent is deprecated and inactive.
    """
    judge(concept, lf_type, config)
    custom = lf_type == LFType.CUSTOM
    author = getattr(user, "pk", None)
    with transaction.atomic():
        if parent is not None:
            # The lock makes two new versions of one parent take turns: the second is refused.
            parent = LabelingFunction.objects.select_for_update().get(pk=parent.pk)
            if LabelingFunction.objects.filter(parent_lf=parent).exists():
                raise NotPossibleNow(
                    f"{parent.name} was replaced already; make a new version of its newest one."
                )
        lf = LabelingFunction.objects.create(
            c=concept,
            rule=rule,
            cv=cv,
            name=name,
            lf_type=lf_type,
            lf_config=config,
            is_active=not custom,
            requires_approval=custom,
            created_by_id=author,
            edited_by_id=author,
            parent_lf=parent,
            version=1 if parent is None else parent.version + 1,
        )
        lf.set_applicable(applicable)
        audit.record(user, Act.ADDED, lf, f"version {lf.version}, {_content(lf)}")
        if parent is not None:
            LabelingFunction.objects.filter(pk=parent.pk).update(
                is_active=False,
                deprecated_at=timezone.now(),
                deprecated_by_lf=lf,
                updated_at=timezone.now(),
            )
            said = f"replaced by version {lf.version}, {lf.name} (lf_id {lf.lf_id})"
            audit.record(user, Act.CHANGED, parent, said)
    return lf


def new_version(
    parent: LabelingFunction, *, config: dict[str, Any], name: str | None, user: User
) -> LabelingFunction:
    """Replace a function by another that inherits its rule and applicable values."""
    return create(
        parent.c,
        name=name or f"{parent.name}_v{parent.version + 1}",
        rule=parent.rule,
        lf_type=parent.lf_type,
        config=config,
        applicable=applicable_with(parent, config),
        user=user,
        cv=parent.cv,
        parent=parent,
    )


def change(lf: LabelingFunction, changes: Mapping[str, Any], user: User) -> None:
    """Apply `name`, `lf_config` and `is_active`, all or none."""
    done = []
    with transaction.atomic():
        if "lf_config" in changes and changes["lf_config"] != lf.lf_config:
            config = changes["lf_config"]
            judge(lf.c, lf.lf_type, config)
            lf.edit(config, applicable=applicable_with(lf, config), user=user)
            done.append(f"edited, {_content(lf)}")
        if "name" in changes and changes["name"] != lf.name:
            done.append(f"renamed from {lf.name} to {changes['name']}")
            lf.rename(changes["name"])
        if "is_active" in changes:
            if changes["is_active"] != lf.is_active:
                done.append("switched on" if changes["is_active"] else "switched off")
            lf.set_active(changes["is_active"])
        if done:
            audit.record(user, Act.CHANGED, lf, "; ".join(done))


def toggle(lf: LabelingFunction, user: User) -> None:
    """Switch it off if it is on, and the other way round; see LabelingFunction.set_active."""
    change(lf, {"is_active": not lf.is_active}, user)


def approve(lf: LabelingFunction, user: User, *, code_sha256: str | None) -> None:
    """Activate the function with the code that the reviewer has read; see `check_approval`.

    The code is run first: CannotBeDone if it does not load, takes too long, or votes differently
    on the same row. A rule that is not materialized has no rows to run it on, and does not stop an
    approval; `approval_trial` says what was found.
    """
    lf.check_approval(user, code_sha256=code_sha256)
    found = _found_before_approval(lf)  # takes seconds at worst: outside of the transaction
    with transaction.atomic():
        lf.approve(user, trial=found)
        audit.record(user, Act.CHANGED, lf, f"approved {_content(lf)}. {found}")


def reject(lf: LabelingFunction, user: User, *, reason: str, code_sha256: str) -> None:
    """Switch off the code that the reviewer has read, and say why; see LabelingFunction.reject."""
    with transaction.atomic():
        lf.reject(user, reason=reason, code_sha256=code_sha256)
        audit.record(user, Act.CHANGED, lf, f"rejected {_content(lf)}: {reason}")


def delete(lf: LabelingFunction, user: User) -> None:
    """Delete a function. The version that it replaced is no longer deprecated, though inactive."""
    with transaction.atomic():
        parent = lf.parent_lf
        audit.record(user, Act.DELETED, lf, f"version {lf.version}, {_content(lf)}")
        said = f"its version {lf.version}, {lf.name}, was deleted"
        lf.delete()
        if parent is not None:
            LabelingFunction.objects.filter(pk=parent.pk).update(
                deprecated_at=None, deprecated_by_lf=None, updated_at=timezone.now()
            )
            audit.record(user, Act.CHANGED, parent, said)


def versions(lf: LabelingFunction) -> list[LabelingFunction]:
    """The whole chain that `lf` belongs to, from the first version to the newest."""
    chain = LabelingFunction.objects.filter(c_id=lf.c_id).prefetch_related("applicable")
    of_concept = {one.pk: one for one in chain}
    child_of = {one.parent_lf_id: one for one in of_concept.values() if one.parent_lf_id}
    first = of_concept[lf.pk]
    while first.parent_lf_id is not None:
        first = of_concept[first.parent_lf_id]
    found = [first]
    while (child := child_of.get(found[-1].pk)) is not None:
        found.append(child)
    return found


def judge(concept: Concept, lf_type: str, config: Mapping[str, Any]) -> frozenset[str] | None:
    """CannotBeDone if a custom function's code says what it may not.

    The columns that the function reads; None if it may read any.
    """
    if lf_type != LFType.CUSTOM:
        return frozenset({str(config["field"])})
    return policy.judge(
        config["code"], allowed_imports=config["allowed_imports"], values=values_of(concept)
    ).columns


def applicable_with(lf: LabelingFunction, config: Mapping[str, Any]) -> list[ConceptValue]:
    """What `lf` may vote once `config` is in place: a label that was its only vote is replaced."""
    values = list(lf.applicable.all())
    label = config.get("label")
    if label is None or label in {value.cv_id for value in values}:
        return values
    if [value.cv_id for value in values] != [lf.lf_config.get("label")]:
        raise CannotBeDone(
            f"label must be one of applicable_cv_ids {lf.applicable_cv_ids}.", field="lf_config"
        )
    return list(ConceptValue.objects.filter(c_id=lf.c_id, cv_id=label))


def _content(lf: LabelingFunction) -> str:
    """What the audit trail says of a definition."""
    return f"sha256={lf.code_sha256}" if lf.runs_user_code else str(lf.lf_type)


# --- trials ---------------------------------------------------------------------------------


def try_out(
    *,
    rule: Rule,
    lf_type: str,
    config: dict[str, Any],
    applicable: Sequence[ConceptValue],
    limit: int,
) -> dict[str, Any]:
    """Run a definition on at most `limit` rows of its rule, spread evenly over it; nothing is kept.

    In the answer `cv_id` is -1 where it abstained and None where the row failed; `seconds` is all
    that was waited for: two processes, each of which voted once, the second in another order.

    CannotBeDone if the code is refused, does not load or takes too long; NotPossibleNow if the rule
    is not materialized.
    """
    from labeling.trial import trial
    from labeling.votes import Function

    columns = judge(rule.c, lf_type, config)
    rows = _rows_to_try(rule, columns, limit)
    cv_ids = [value.cv_id for value in applicable]
    function = Function(0, "it", lf_type, config, cv_ids, rule.r_id, columns)
    begun = time.monotonic()
    found = trial(function, rows, key_column=rule.key_column, seed=TRIAL_SEED)
    seconds = time.monotonic() - begun
    keys = [as_json(key) for key in rows.column(rule.key_column).to_pylist()]
    names = {value.cv_id: value.name for value in applicable}
    differing = found.differing
    return {
        "row_count": rule.row_count,
        "rows": rows.num_rows,
        "columns": sorted(rule.columns_of_product if columns is None else columns),
        "votes": [
            {"sample_id": key, "cv_id": vote, "name": None if vote is None else names.get(vote)}
            for key, vote in zip(keys, found.votes, strict=True)
        ],
        "counts": [
            {"cv_id": cv_id, "name": name, "rows": found.counts.get(cv_id, 0)}
            for cv_id, name in names.items()
        ],
        "abstained": found.counts.get(ABSTAIN, 0),
        "fault_count": found.fault_count,
        "faults": [
            {"sample_id": keys[fault.row], "lines": fault.lines, "message": fault.said}
            for fault in found.faults
        ],
        "seconds": seconds,
        "microseconds_per_row": found.seconds_per_row * 1e6,
        "deterministic": found.deterministic,
        "differing": None
        if differing is None
        else {
            "sample_id": keys[differing.row],
            "first": differing.first,
            "second": differing.second,
        },
    }


def try_saved(
    lf: LabelingFunction, *, limit: int, config: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Run a function as it is saved, or as it would be with another `config`; see `try_out`."""
    config = lf.lf_config if config is None else config
    return try_out(
        rule=lf.rule,
        lf_type=lf.lf_type,
        config=config,
        applicable=applicable_with(lf, config),
        limit=limit,
    )


def _found_before_approval(lf: LabelingFunction) -> str:
    """What a trial showed, in a sentence; CannotBeDone if the votes depend on more than the row."""
    try:
        found = try_saved(lf, limit=APPROVAL_ROWS)
    except NotPossibleNow as not_there:
        return f"It could not be tried: {not_there.detail}"
    if (row := found["differing"]) is not None:
        names = {vote["cv_id"]: vote["name"] for vote in found["counts"]}
        first, second = (_vote_in_words(row[each], names) for each in ("first", "second"))
        raise CannotBeDone(
            f"{lf.name} does not always vote alike: {row['sample_id']} {first} at first and "
            f"{second} when the rows came in another order. A vote may depend on its row alone.",
            code="not_deterministic",
        )
    voted = found["rows"] - found["abstained"] - found["fault_count"]
    return (
        f"Tried on {found['rows']} of {found['row_count']} rows: {voted} votes, "
        f"{found['abstained']} abstained, {found['fault_count']} failed; alike the second time."
    )


def _vote_in_words(vote: int | None, names: Mapping[int, str]) -> str:
    if vote is None:
        return "failed"
    return "abstained" if vote == ABSTAIN else f"voted {names[vote]}"


def _rows_to_try(rule: Rule, columns: frozenset[str] | None, most: int) -> "pa.Table":
    """At most `most` rows, spread evenly over the rule's product: the key and `columns` of them.

    Memory holds one row group at a time, however large the product is.
    """
    import numpy as np
    import pyarrow as pa

    rule.require_materialized()
    there, key = rule.columns_of_product, rule.key_column
    if key not in there:
        raise CannotBeDone(f"The rule {rule.name} has no column {key}; it has: {', '.join(there)}.")
    names = there
    if columns is not None and columns <= set(there):  # else the refusal lists what there is
        names = [name for name in there if name in columns or name == key]
    with storage.open_parquet(rule.storage_key) as file:
        total = file.metadata.num_rows
        count = min(most, total)
        wanted = np.arange(count) * total // max(count, 1)
        parts = [file.schema_arrow.empty_table().select(names)]
        before = 0
        for number in range(file.num_row_groups):
            size = file.metadata.row_group(number).num_rows
            inside = wanted[(wanted >= before) & (wanted < before + size)] - before
            if len(inside):
                parts.append(file.read_row_group(number, names).select(names).take(inside))
            before += size
    return pa.concat_tables(parts)
