"""A real box under the alert screen: its AI ends, its PACS goes; the screen says so, and images go on."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time

import psutil
import pytest
from box_process import BoxProcess
from scp_kit import ct, encode
from web_kit import COOKIE, session

from appliance.clock import SystemClock
from appliance.simulate.pacs import Pacs
from appliance.simulate.rawscu import RawScu
from appliance.store import Store

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
#: How long anything here may take before it counts as a hang.
LONG_MS = 90_000


@contextlib.contextmanager
def without_worker(box):
    """Ends every worker that the box has or starts, until the block ends."""
    over = threading.Event()

    def kill():
        while not over.wait(0.05):
            with contextlib.suppress(psutil.NoSuchProcess):
                for one in psutil.Process(box.process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        if "appliance.triage.worker" in one.cmdline():
                            one.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        over.set()
        killer.join()


@pytest.mark.fault("T29")
@pytest.mark.req("R-SCREEN-01")
def test_an_ai_that_is_gone_is_said_within_15_s_while_images_go_on_to_the_pacs(
    tmp_path, open_page, browser, wait_until, record_property
):
    with Pacs(tmp_path / "pacs") as pacs:
        destination = {"kind": "dicom", "name": "PACS", "purpose": "test", "host": "127.0.0.1", "port": pacs.port}
        destination |= {"ae_title": "PACS", "send": ["original"], "timeout_s": 5}
        with BoxProcess(tmp_path, packages=["head-ct-hyperdensity"], destinations=[destination], mode="inline") as box:
            store = Store.open(box.state, SystemClock(), reserve_bytes=0)
            context, address = browser(), f"http://127.0.0.1:{box.screen_port}"
            context.add_cookies([{"name": COOKIE, "value": session(store), "url": address}])
            page = open_page("?lang=en", context=context, address=address)

            def send(number):
                """One image of a new study: acknowledged, and in the PACS as it was sent."""
                image = ct(StudyInstanceUID=f"1.2.826.9.{number}", InstanceNumber=number)
                uid, data = str(image.SOPInstanceUID), encode(image)
                scanner = RawScu("127.0.0.1", box.dicom_port, calling="CT-1", called="SCANSIDE", timeout_s=60)
                scanner.connect()
                (context,) = scanner.associate([(CT, [EXPLICIT_LE])])
                assert scanner.store(context, CT, uid, data) == 0
                scanner.release()
                scanner.close()
                wait_until(lambda: uid in pacs.stored(), timeout_s=90)
                assert pacs.stored()[uid].sha256 == hashlib.sha256(data).hexdigest()

            page.wait_for_selector("html[data-ai=ready]", timeout=LONG_MS)
            wait_until(lambda: any(str(f.kind) == "worker_started" for f in store.journal.after(0, 1000)), timeout_s=90)
            send(1)
            assert page.get_by_test_id("ai-down").count() == 0
            killed = time.monotonic()
            with without_worker(box):
                banner = page.get_by_test_id("ai-down")
                banner.wait_for(timeout=15_000)
                record_property("banner_s", round(time.monotonic() - killed, 2))
                assert "Images still go to the PACS." in banner.inner_text()
                for number in (2, 3):
                    send(number)
                assert page.locator("html").get_attribute("data-ai") == "down"
                assert page.get_by_test_id("pacs-down").count() == 0
            assert page.troubles == []
            store.close()
