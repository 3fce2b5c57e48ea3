"""A certificate of this box whose time is over is a loud issue, and one that ends soon a quiet one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from appliance.health.checks import CertificatesCheck

DAY = timedelta(days=1)


@pytest.mark.req("R-FAULT-T43")
@pytest.mark.parametrize(
    ("begins", "ends", "expected"),
    [
        (-9, 90, []),
        (-9, 31, []),
        (-9, 29, [("CERTIFICATE_ENDS", "screen.tls", "warning")]),
        (-9, 0, [("CERTIFICATE_INVALID", "screen.tls", "fault")]),
        (-9, -2, [("CERTIFICATE_INVALID", "screen.tls", "fault")]),
        (2, 90, [("CERTIFICATE_INVALID", "screen.tls", "fault")]),
    ],
)
def test_what_stands_is_said_by_its_listener(store, clock, begins, ends, expected):
    now = clock.now()
    check = CertificatesCheck(store, {"screen.tls": (now + begins * DAY, now + ends * DAY)})
    for _ in range(2):
        check.run()
    assert [(issue.code, issue.subject, issue.severity) for issue in store.issues.open()] == expected


def test_the_days_go_by_and_a_new_one_clears_it(store, clock):
    now = clock.now()
    check = CertificatesCheck(store, {"dicom.tls": (now - DAY, now + 40 * DAY)})
    for days, expected in ((0, []), (15, ["CERTIFICATE_ENDS"]), (30, ["CERTIFICATE_INVALID"])):
        clock.jump(days * 86400)
        check.run()
        assert [issue.code for issue in store.issues.open()] == expected
    (issue,) = store.issues.open()
    assert issue.detail["why"].startswith("it holds from 2")
    CertificatesCheck(store, {"dicom.tls": (now, clock.now() + 365 * DAY)}).run()
    assert store.issues.open() == []
    # Nothing that others raised is touched.
    store.issues.raise_("DISK_RESERVE", "dicom.tls", "fault")
    check.run()
    CertificatesCheck(store, {}).run()
    assert [issue.code for issue in store.issues.open()] == ["DISK_RESERVE"]
