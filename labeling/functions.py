"""Labeling functions as definitions: create, change, replace by a new version, delete."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction
from django.utils import timezone

from concepts.models import Concept, ConceptValue, Rule
from labeling import policy
from labeling.models import LabelingFunction, LFType
from tippers.errors import CannotBeDone, NotPossibleNow

User = AbstractBaseUser | AnonymousUser


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
        if parent is not None:
            LabelingFunction.objects.filter(pk=parent.pk).update(
                is_active=False,
                deprecated_at=timezone.now(),
                deprecated_by_lf=lf,
                updated_at=timezone.now(),
            )
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
    with transaction.atomic():
        if "lf_config" in changes:
            config = changes["lf_config"]
            judge(lf.c, lf.lf_type, config)
            lf.edit(config, applicable=applicable_with(lf, config), user=user)
        if "name" in changes:
            lf.rename(changes["name"])
        if "is_active" in changes:
            lf.set_active(changes["is_active"])


def delete(lf: LabelingFunction) -> None:
    """Delete a function. The version that it replaced is no longer deprecated, though inactive."""
    with transaction.atomic():
        parent_id = lf.parent_lf_id
        lf.delete()
        if parent_id is not None:
            LabelingFunction.objects.filter(pk=parent_id).update(
                deprecated_at=None, deprecated_by_lf=None, updated_at=timezone.now()
            )


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


def judge(concept: Concept, lf_type: str, config: Mapping[str, Any]) -> None:
    """CannotBeDone if a custom function's code says what it may not."""
    if lf_type == LFType.CUSTOM:
        policy.judge(
            config["code"],
            allowed_imports=config["allowed_imports"],
            values=values_of(concept),
        )


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
