from __future__ import annotations

import numpy as np
import pytest

from engines.errors import ContentError
from engines.heads.base import check_finite
from engines.heads.classify import Classify
from engines.preprocess.base import Assembled
from engines.types import Prepared, Stack

PICTURE = Prepared(id="the picture", array=np.zeros((4, 4), np.float32), shape=(4, 4), spacing_mm=None)
ASSEMBLED = Assembled(tensors={}, stack=Stack(slices=(PICTURE,)), numbers={"exposure": 3.0})
HEAD = Classify(output="scores", findings=("first", "second"))


def test_columns_become_findings_in_order_with_the_picture_as_key():
    out = HEAD.decide({"scores": np.array([[0.25, 0.75]], np.float32)}, ASSEMBLED)
    assert out.scores == {"first": 0.25, "second": 0.75}
    assert out.key_slices["second"] == ("the picture",)
    assert out.numbers == {"exposure": 3.0}


@pytest.mark.req("R-ENGINE-03")
@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"scores": np.zeros((1, 3), np.float32)},
        {"scores": np.zeros(2, np.float32)},
        {"scores": np.array([[0.5, 1.01]], np.float32)},
        {"scores": np.array([[-0.01, 0.5]], np.float32)},
    ],
)
def test_output_that_cannot_be_a_probability_is_unreliable(outputs):
    with pytest.raises(ContentError) as caught:
        HEAD.decide(outputs, ASSEMBLED)
    assert caught.value.reason == "unreliable_output"


@pytest.mark.req("R-ENGINE-03")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_among_many_is_seen(bad):
    array = np.ones((50, 50), np.float32)
    array[17, 31] = bad
    with pytest.raises(ContentError, match="'map' holds NaN or infinity"):
        check_finite({"map": array})
    check_finite({"map": np.full((50, 50), 3e38, np.float32), "mask": np.ones(3, np.bool_)})
