"""What open pages do when something goes wrong, and what paper shows of them."""

from __future__ import annotations

import re

import pytest
from web_kit import barriers

from appliance.health.checks import DiskCheck
from appliance.records import Actor, ActorKind, AlertStep

LI_WEI = Actor(kind=ActorKind.PERSON, name="Li Wei", role="technologist")
#: What Chromium and htmx say of an answer that is a refusal.
REFUSED = re.compile(r"status of 4\d\d|Response Status Error Code 4\d\d")
#: An A4 sheet across, without its margins, at 96 points an inch: what a browser lays paper out for.
PAPER = {"width": 1032, "height": 703}


def band(page, name, state="visible"):
    """Wait for a band to come or go: a beat, and the box's own look at its store. Returns what it says."""
    page.get_by_test_id(name).wait_for(state=state, timeout=30_000)
    return " ".join(page.get_by_test_id(name).inner_text().split())


@pytest.mark.req("R-ALERT-03", "R-SCREEN-10")
@pytest.mark.fault("T45")
def test_an_alert_that_nobody_answers_and_a_full_disk_come_up_on_a_page_that_is_open_and_go_again(
    open_page, store, write, scenes
):
    alert = write(scenes.urgent)
    page = open_page(path="/critical-values", role="radiologist")
    page.wait_for_selector("html[data-ai=ready]")
    assert not page.get_by_test_id("overdue").is_visible()
    write(scenes.steps_taken, alert, AlertStep.REPEAT, AlertStep.TELL, AlertStep.OVERDUE)
    store.spool.reserve_bytes = 1 << 60
    DiskCheck(store).run()
    assert band(page, "overdue") == "!!! OVERDUE Urgent alerts that nobody has acknowledged: 1"
    assert band(page, "fault") == "!! Disk full. New images are refused."
    assert barriers(page, ".bar") == []
    # In sight wherever one has scrolled to, on a narrow window too, and one tap from the alert.
    page.set_viewport_size({"width": 800, "height": 480})
    page.mouse.wheel(0, 4000)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = page.get_by_test_id("overdue").bounding_box()
    assert 0 <= box["y"] < 240
    assert box["height"] >= 44
    # In the reader's language, also what comes by the beat.
    page.context.add_cookies([{"name": "scanside_lang", "value": "zh_Hans_CN", "url": page.url}])
    page.reload()
    assert band(page, "fault") == "!! 磁盘已满，拒收新图像。"
    assert "超时未处理" in band(page, "overdue")
    store.spool.reserve_bytes = 0
    DiskCheck(store).run()
    store.alerts.acknowledge(alert, LI_WEI)
    band(page, "overdue", "hidden")
    band(page, "fault", "hidden")
    write(scenes.steps_taken, write(scenes.urgent, scenes.LI), AlertStep.OVERDUE)
    band(page, "overdue")
    page.get_by_test_id("overdue").locator("a").click()
    page.wait_for_url("**/alert")
    assert page.troubles == []


@pytest.mark.req("R-SCREEN-10", "R-ACCESS-07")
def test_an_act_of_a_script_that_is_refused_or_gets_no_answer_is_said_under_the_bar(open_page, serve):
    server, address = serve()
    page = open_page(path="/users", role="administrator", address=address)
    said = page.get_by_test_id("said")
    assert not said.is_visible()

    def act(path):
        page.evaluate("document.getElementById('said').hidden = true")
        page.evaluate("path => { htmx.ajax('POST', path, { swap: 'none' }); }", path)
        said.wait_for()
        return said.inner_text()

    assert "The box did not do this" in act("/users/99999/active")
    page.evaluate("document.querySelector('meta[name=csrf]').content = 'old'")
    assert "This form is too old" in act("/users")
    assert "send it once more" in said.inner_text()
    # The page's own way to post says the same.
    page.evaluate("document.getElementById('said').hidden = true")
    page.evaluate(
        "async () => { const { post } = await import(document.querySelector('script[src*=shell]').src);"
        " await post('/users', {}).catch(() => null); }"
    )
    assert "This form is too old" in said.inner_text()
    assert [one for one in page.troubles if not REFUSED.search(one)] == []
    server.stop()
    assert "does not answer" in act("/users")


@pytest.mark.req("R-ALERT-05")
def test_the_register_on_paper_is_black_on_white_whole_and_has_its_head_on_every_sheet(open_page, store, write, scenes):
    for n in range(45):
        person = (scenes.WANG, scenes.DOE, scenes.LI)[n % 3]
        write(scenes.was_told, write(scenes.urgent, person), received_by=f"Dr Chen {n}")
    write(scenes.urgent, scenes.LI)
    write(lambda tx: tx.execute("UPDATE alert SET state = 'withdrawn', withdrawn_at = ? WHERE id = 3", (tx.at,)))
    for locale in ("en", "zh_Hans_CN"):
        page = open_page(f"?lang={locale}", path="/critical-values", role="radiologist", viewport=PAPER)
        page.emulate_media(media="print")
        # Nothing to press, nothing of the screen's frame.
        shown = page.evaluate(
            "() => [...document.querySelectorAll('button, nav, form, input, .bar, .band, .foot, .gone, a')]"
            ".filter(one => one.checkVisibility()).map(one => one.outerHTML.slice(0, 80))"
        )
        assert shown == []
        # Ink: every text dark on white, though the screen is light on black.
        pale = page.evaluate(
            """() => {
              const light = (colour) => {
                const [r, g, b, alpha = 1] = colour.match(/[\\d.]+/g).map(Number);
                return alpha === 0 ? 255 : 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              const out = [];
              for (const one of document.body.querySelectorAll("*")) {
                if (!one.checkVisibility()) continue;
                const style = getComputedStyle(one);
                const hasText = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
                const name = `${one.tagName}.${one.className}`;
                if (light(style.backgroundColor) < 240) out.push(`${name} on ${style.backgroundColor}`);
                if (hasText && light(style.color) > 110) out.push(`${name} in ${style.color}`);
              }
              return [...new Set(out)];
            }"""
        )
        assert pale == []
        assert page.evaluate("getComputedStyle(document.querySelector('thead')).display") == "table-header-group"
        # A long table begins where there is room, not on a sheet of its own.
        avoiding = "[...document.querySelectorAll('.card, .table')].map(one => getComputedStyle(one).breakInside)"
        assert set(page.evaluate(avoiding)) == {"auto"}
        assert page.locator("[data-testid=lines] tbody tr").count() == 45
        cut = page.evaluate(
            "() => [...document.querySelectorAll('.table, td, th')].filter(one => one.checkVisibility()"
            " && (one.scrollWidth > one.clientWidth + 1 || one.getBoundingClientRect().right > innerWidth + 1))"
            ".map(one => one.textContent.trim().slice(0, 60))"
        )
        assert cut == []
        # The day, the site and a line to sign stand on it.
        assert re.search("not for patient care|不得用于诊疗", page.locator(".only-print").first.inner_text())
        assert page.locator(".signature").is_visible()
        sheets = page.pdf(prefer_css_page_size=True)
        assert 3 <= len(re.findall(rb"/Type\s*/Page\b", sheets)) <= 7
        assert re.search(rb"/MediaBox\s*\[0 0 84[12]", sheets), "A4 across"
        assert page.troubles == []
