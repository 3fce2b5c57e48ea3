"""What ``study show`` says of the order."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from appliance.cli.study import order_text
from appliance.records import OrderState
from appliance.store.orders import OrderView


def order(state=OrderState.FOUND, **told):
    fields = {"priority": "", "procedure_id": "", "procedure_description": "", "accession_number": ""}
    return OrderView(state=state, asked_at=datetime(2026, 1, 1, tzinfo=timezone.utc), **{**fields, **told})


@pytest.mark.req("R-ORDER-01")
def test_order_is_one_line_and_says_where_an_accession_number_comes_from():
    found = order(priority="STAT", procedure_description="CT head", procedure_id="RP1", accession_number="A1")
    assert order_text(found) == (
        "order: STAT, CT head, procedure RP1, accession number A1, which results carry as the images have none"
    )
    assert order_text(order()) == "order: known, without particulars"


@pytest.mark.req("R-ORDER-03")
@pytest.mark.parametrize("state", [state for state in OrderState if state is not OrderState.FOUND])
def test_every_other_answer_says_what_it_was(state):
    assert order_text(order(state)).startswith("order: the worklist has ")
