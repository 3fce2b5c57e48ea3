"""Settings of commitment and retention."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from appliance.config import Config
from appliance.records import SELF_TEST_SOURCE

PACS = {"kind": "dicom", "name": "pacs", "host": "127.0.0.1", "port": 104, "ae_title": "PACS"}
CT = {"name": "CT-1", "ae_title": "CT-1", "mode": "inline"}
ASKING = {**CT, "commitment_host": "10.1.2.3", "commitment_port": 104}
COMMITS = {**PACS, "commitment": True}


def test_images_are_committed_by_the_destinations_that_get_originals_and_commit():
    results_only = {**COMMITS, "name": "results", "send": ["sr"]}
    config = Config.model_validate(
        {
            "sources": [ASKING, {**CT, "name": "CT-2", "ae_title": "CT-2", "mode": "parallel"}],
            "destinations": [COMMITS, results_only, {**PACS, "name": "copy"}],
        }
    )
    assert config.committing("CT-1") == ("pacs",)
    assert config.committing("CT-2") == config.committing("nobody") == ()
    assert [one.name for one in config.commitment_destinations] == ["pacs", "results"]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"sources": [ASKING], "destinations": [PACS]}, "no destination of its originals has commitment"),
        ({"sources": [{**ASKING, "mode": "parallel"}], "destinations": [COMMITS]}, "vouches only for"),
        ({"sources": [{**CT, "commitment_port": 104}], "destinations": [COMMITS]}, "belong together"),
        ({"sources": [{**CT, "commitment_tls": {"ca_path": "/ca.pem"}}]}, "commitment_tls is of no use without"),
        ({"sources": [{**CT, "name": SELF_TEST_SOURCE}]}, "sources.0.name"),
        ({"retention": {"images_h": 0}}, "images_h"),
        ({"retention": {"results_days": 30}}, "results_days"),
    ],
)
def test_a_setting_that_could_not_be_kept_is_refused_with_the_reason(document, words):
    with pytest.raises(ValidationError, match=words):
        Config.model_validate(document)
