"""The alert screen in every state that it knows: in both languages, on every panel, for gloves, grey eyes and readers.

One page is opened for each state and language, and everything that holds for all of them is asked there.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from web_kit import Longer, barriers, browser_cookie

from appliance.config import Config
from appliance.records import Actor, ActorKind, Detail, Reason, Severity

#: State: where its words stand, and what they are in both languages.
WORDS = {
    "idle": ("hero", "Ready", "就绪"),
    "receiving": ("hero", "Receiving images", "正在接收图像"),
    "analysing": ("hero", "Analysing", "正在分析"),
    "urgent": ("hero", "Suspected bleed in the head", "疑似颅内出血"),
    "priority": ("hero", "Suspected pleural effusion", "疑似胸腔积液"),
    "note": ("hero", "For information", "提示"),
    "quality": ("hero", "lung bases cut off", "肺底未包全"),
    "seen": ("seen-by", "Seen by Li Wei", "Li Wei 已于"),
    "told": ("told", "Dr Chen told at", "通知 Dr Chen"),
    "test": ("hero", "Test alert", "测试警示"),
    "nothing-flagged": ("hero", "Nothing flagged", "AI 未作提示"),
    "not-analysed": ("hero", "Images are missing", "图像缺失"),
    "outside": ("hero", "This kind of image is outside what the AI can check", "此类图像超出 AI 可分析范围"),
    "ai-down": ("ai-down", "Images still go to the PACS.", "图像仍会发送至 PACS。"),
    "withdrawn": ("withdrawn", "Withdrawn: the images were rejected", "图像已被判为拒用"),
    "several": ("count", "3 open alerts", "3 条未确认警示"),
    "overdue": ("overdue", "Nobody has acknowledged an urgent alert", "紧急警示仍无人确认"),
    "backlog": ("notice", "3 flagged", "3"),
    "quality-several": ("count", "3 not answered", "3 "),
    "ai-down-with-alert": ("pacs-down", "Images are NOT reaching the PACS", "图像未能送达 PACS"),
    "all-at-once": ("overdue", "Nobody has acknowledged an urgent alert", "紧急警示仍无人确认"),
    "empty": ("hero", "Ready", "就绪"),
}
#: Scenes whose state has another name.
STATES = {
    "outside": "not-analysed",
    "told": "seen",
    "several": "urgent",
    "overdue": "urgent",
    "backlog": "urgent",
    "quality-several": "quality",
    "ai-down-with-alert": "urgent",
    "all-at-once": "urgent",
    "empty": "idle",
}
BAND = {"en": "Evaluation, not for patient care", "zh_Hans_CN": "评估模式，不得用于诊疗"}
FOOTER = {"en": "Not a diagnosis", "zh_Hans_CN": "不作为诊断依据"}
BANNED = re.compile(r"normal|negative|healthy|absent|正常|阴性", re.IGNORECASE)
#: Numbers to call, and images that go through the box: the longest that banners get.
SITE = Config.model_validate(
    {
        "site": {"radiologist_phone": "5 1234", "service_phone": "400 820 1234"},
        "sources": [{"name": name, "ae_title": name, "mode": "inline"} for name in ("CT-1", "DX-2")],
        "destinations": [
            {"kind": "dicom", "name": "PACS", "purpose": "test", "host": "127.0.0.1", "port": 1, "ae_title": "PACS"}
            | {"send": ["original"]}
        ],
    }
)
LARGE, SMALL, WALL = ({"width": w, "height": h} for w, h in ((1280, 800), (800, 480), (1920, 1080)))

#: Keeps what the page is sent, beside what it makes of it.
LISTEN = """
  window.boards = [];
  window.EventSource = class extends EventSource {
    constructor(...given) {
      super(...given);
      this.addEventListener("board", (message) => boards.push(message.data));
    }
  };
"""
LOOKS = Path(__file__).with_name("looks.js").read_text("utf-8")


def looks(page, *names):
    """What functions of ``looks.js`` find wrong in an open page, with its width."""
    width = page.viewport_size["width"]
    found = page.evaluate(f"() => {{ {LOOKS}\nreturn [{', '.join(f'...{name}()' for name in names)}]; }}")
    return [f"{width} wide: {one}" for one in found]


def all_at_once(tx, _store, scenes):
    """Everything that has a banner of its own."""
    scenes.SCENES["overdue"](tx, _store)
    for code, subject in (
        ("AI_UNAVAILABLE", "worker"),
        ("SPOOL_CORRUPT", "spool"),
        ("DESTINATION_UNREACHABLE", "PACS"),
    ):
        scenes._issue(tx, code, subject, Severity.WARNING if subject == "PACS" else Severity.FAULT, 780)


#: The states that every run looks at; `make test-long` looks at all.
OFTEN = {"urgent", "not-analysed", "outside", "ai-down", "quality", "nothing-flagged", "all-at-once"}


def outside(tx, _store, scenes):
    """What a package claims by its header, and whose images are not what it can check."""
    scenes.not_analysed(tx, Reason.OUT_OF_ENVELOPE, (Detail("the slices of the series are not parallel"),))


@pytest.fixture
def filled(store, scenes):
    """``filled(scene)``: the store in that state."""

    def fill(scene):
        own = {"all-at-once": all_at_once, "outside": outside}
        if scene in own:
            with store.db.write() as tx:
                own[scene](tx, store, scenes)
        else:
            scenes.fill(store, scene)

    return fill


@pytest.fixture(scope="module")
def longer():
    """Read once."""
    return Longer()


@pytest.fixture
def serve_longer(serve, longer, monkeypatch):
    """``serve_longer()``: the address of a screen whose texts are longer by 40 %."""

    def start():
        with monkeypatch.context() as patch:
            patch.setattr("appliance.screen.app.Catalogues", lambda: longer)
            return serve(config=SITE)[1]

    return start


def whole_identities(scenes, text):
    """What of a patient stands in a text beyond initials and a tail."""
    for person in (scenes.WANG, scenes.DOE, scenes.LI):
        family, _, given = person.patient_name.partition("=")[0].partition("^")
        wide = person.patient_name.partition("=")[2]
        whole = [person.patient_id, person.accession_number, person.patient_name, wide.replace("^", ""), wide]
        whole += [wide.partition("^")[2], person.patient_birth_date, f"{family}, {given}", f"{family} {given}"]
        whole += [given] if len(given) > 2 else []
        yield from (one for one in whole if len(one) > 1 and one.lower() in text.lower())


@pytest.fixture(scope="module")
def panel(chromium_with):
    """One page for all states: a browser that has drawn this screen before draws it in half the time."""
    context = chromium_with().new_context(viewport=LARGE)
    context.add_init_script(LISTEN)
    yield context.new_page()
    context.close()


@pytest.fixture
def look_at(panel, store, troubles):
    """``look_at(address)``: the page there, alive and large; for a paired screen unless another role is named."""
    panel.context.clear_cookies()
    panel.troubles = troubles(panel)

    def look(address, query="?lang=en", role="screen"):
        panel.context.add_cookies([browser_cookie(store, address, role)])
        panel.set_viewport_size(LARGE)
        panel.goto(f"{address}/alert{query}")
        panel.wait_for_selector("html[data-connection=live]")
        return panel

    yield look
    panel.goto("about:blank")


@pytest.mark.req("R-SCREEN-01")
@pytest.mark.req("R-SCREEN-05")
@pytest.mark.req("R-SCREEN-07")
@pytest.mark.parametrize("scene", [one if one in OFTEN else pytest.param(one, marks=pytest.mark.long) for one in WORDS])
def test_every_state_can_be_read_and_touched_on_every_panel_and_shows_nobody_whole(
    serve, serve_longer, look_at, filled, scenes, scene
):
    filled(scene)
    _, address = serve(config=SITE)
    place, *words = WORDS[scene]
    wrong = []
    for locale, said in zip(BAND, words, strict=True):
        page = look_at(address, f"?lang={locale}")
        assert page.locator("html").get_attribute("data-state") == STATES.get(scene, scene)
        assert said in page.get_by_test_id(place).first.inner_text()
        assert page.get_by_test_id("evaluation").inner_text() == BAND[locale]
        assert FOOTER[locale] in page.locator("footer").inner_text()
        assert not BANNED.search(page.locator("body").inner_text())
        for sent in (page.content(), page.evaluate("boards.join()")):
            assert len(sent) > 1000
            assert list(whole_identities(scenes, sent)) == [], "before anybody touched it"
        for size in (LARGE, SMALL, WALL):
            page.set_viewport_size(size)
            found = looks(page, "hidden") if size is WALL else looks(page, "hidden", "tooSmall")
            wrong += [f"{locale}, {one}" for one in found]
        if locale == "en":  # the same elements and colours in the other
            wrong += looks(page, "faint") + barriers(page)
    assert page.troubles == []
    page = look_at(serve_longer())
    assert "~~" in page.locator("footer").inner_text()
    for size in (LARGE, SMALL):
        page.set_viewport_size(size)
        wrong += [f"longer, {one}" for one in looks(page, "hidden")]
    assert not wrong, "\n".join(wrong)


#: Role: its dialogs, each with what opens it.
DIALOGS = {
    "screen": {
        "acknowledge": ".bottom [data-acknowledge]",
        "tell": ".bottom [data-tell]",
        "quality": ".item [data-decide]",
        "keys": "[data-testid=more]",
    },
    "technologist": {
        "tell": ".bottom [data-tell]",
        "quality": ".item [data-decide]",
        "keys": "[data-testid=more]",
        "test": "#keys [data-do=test]",
    },
}


@pytest.mark.req("R-SCREEN-05")
@pytest.mark.parametrize("role", ["screen", pytest.param("technologist", marks=pytest.mark.long)])
def test_every_dialog_can_be_read_and_touched_on_every_panel(serve, serve_longer, look_at, store, write, scenes, role):
    for name in ("Zhao Lei", "Li Wei", "Wang Fang"):  # who did something before is offered by name
        store.alerts.acknowledge(write(scenes.urgent, scenes.LI), Actor(kind=ActorKind.PERSON, name=name))
    write(scenes.urgent)
    write(scenes.warned)
    wrong = []
    _, address = serve(config=SITE)
    for place in (address, serve_longer()):
        page = look_at(place, role=role)
        for name, opener in DIALOGS[role].items():
            if name == "test":
                page.click("[data-testid=more]")
            page.click(opener)
            page.wait_for_selector(f"#{name}[open]")
            for size in (LARGE, SMALL):
                page.set_viewport_size(size)
                how = "" if place == address else "longer, "
                wrong += [f"{how}{name}, {one}" for one in looks(page, "tooSmall", "tooWide")]
            page.set_viewport_size(LARGE)
            if place == address:
                wrong += barriers(page, f"#{name}")
            page.keyboard.press("Escape")
            page.wait_for_selector(f"#{name}", state="hidden")
        assert place != address or page.troubles == []
    assert not wrong, "\n".join(wrong)


@pytest.mark.req("R-SCREEN-05")
def test_levels_are_told_apart_in_grey(serve, look_at, write, scenes):
    """Without colour, as some eyes and every black and white print have it, the shapes alone must do."""
    alerts = {
        "nothing-flagged": lambda: write(scenes.nothing_flagged),
        "not-analysed": lambda: write(scenes.not_analysed),
        "quality": lambda: write(scenes.warned),
        "note": lambda: write(scenes.priority, category=3, active=0, chime=0),
        "priority": lambda: write(scenes.priority),
        "urgent": lambda: write(scenes.urgent),
    }
    for make in alerts.values():
        make()
    page = look_at(serve()[1])
    page.set_viewport_size(WALL)
    picture = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_GRAYSCALE)
    drawn = {}
    for level in alerts:
        box = page.locator(f".glyph.{level}").first.bounding_box()
        rows, columns = (slice(round(box[a]), round(box[a] + box[b])) for a, b in (("y", "height"), ("x", "width")))
        shape = cv2.resize(picture[rows, columns], (48, 48), interpolation=cv2.INTER_AREA).astype(float)
        ground = np.abs(shape - np.median(shape[:2]))
        assert ground.max() > 60, level
        drawn[level] = ground > ground.max() / 2
    # Of how much of their place two shapes differ, however bright each is.
    apart = {pair: (drawn[pair[0]] != drawn[pair[1]]).mean() for pair in itertools.combinations(drawn, 2)}
    assert apart.pop(("quality", "note")) < 0.02  # both are of no alarm, and say in words which they are
    assert min(apart.values()) > 0.09, apart
