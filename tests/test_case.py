from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_case
from wansweep.case import Case, declared_fields
from wansweep.levers import Offload

OTHER = {"steps": 5, "width": 1312, "seed": 7, "offload": Offload.MODEL, "name": "mine", "prompt": "a dog", "gpus": 2}


def test_equal_cases_have_equal_ids() -> None:
    assert make_case().id == make_case().id


def test_every_declared_field_is_part_of_the_id() -> None:
    assert {make_case(**{field: value}).id for field, value in OTHER.items()}.isdisjoint({make_case().id})
    assert len({make_case(**{field: value}).id for field, value in OTHER.items()}) == len(OTHER)


def test_the_label_is_no_part_of_the_id() -> None:
    assert make_case(label="one").id == make_case(label="two").id
    assert "label" not in {field.name for field in declared_fields()}


def test_a_field_left_at_its_default_does_not_enter_the_id_so_fields_can_be_added() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Wider(Case):
        a_later_lever: str = "off"

    fields = {field.name: getattr(make_case(), field.name) for field in dataclasses.fields(Case)}
    assert Wider(**fields).id == make_case().id
    # The id of a run folder written by the first release: it must never change.
    assert make_case().id == "8d4727a9ecad"


@given(st.integers(1, 200), st.integers(0, 2**31))
def test_ids_are_twelve_hex_digits(steps: int, seed: int) -> None:
    assert len(make_case(steps=steps, seed=seed).id) == 12
    int(make_case(steps=steps, seed=seed).id, 16)
