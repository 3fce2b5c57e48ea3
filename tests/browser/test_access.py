"""Signing in, pairing and links from elsewhere, as a real browser does them: by keyboard, also without scripts."""

from __future__ import annotations

import pytest
from web_kit import browser_cookie

from appliance.records import SYSTEM, UserRole
from appliance.web.passwords import Passwords

GOOD = "staple battery horse"


@pytest.fixture
def theo(store):
    store.accounts.add("theo", "Theo", UserRole.TECHNOLOGIST, Passwords().hashed(GOOD), SYSTEM)


@pytest.mark.req("R-ACCESS-01")
def test_signing_in_by_keyboard_and_coming_from_another_site(serve, browser, troubles, theo):
    _, address = serve()
    context = browser()
    page = context.new_page()
    found = troubles(page)
    page.goto(f"{address}/alert?lang=en")
    assert page.url.startswith(f"{address}/sign-in?next=")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("#f-name")
    page.keyboard.type("theo")
    page.keyboard.press("Tab")
    page.keyboard.type(GOOD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/alert?lang=en")
    page.wait_for_selector("html[data-connection=live]")
    # A link on another site: the strict cookie does not come along at first, and nobody is asked to sign in again.
    other = address.replace("127.0.0.1", "localhost")
    page.goto(f"{other}/sign-in")
    page.evaluate("target => { location.href = target }", f"{address}/account")
    page.wait_for_selector("[data-testid=account]")
    page.click("[data-testid=me] summary")
    page.click("[data-testid=sign-out]")
    page.wait_for_url(f"{address}/sign-in**")  # its stream may hear of it first, and names the page to come back to
    page.goto(f"{address}/account")
    assert "/sign-in?next=%2Faccount" in page.url
    assert [one for one in found if not one.startswith(other)] == []


@pytest.mark.req("R-ACCESS-01")
def test_the_door_works_without_scripts(serve, browser, theo):
    _, address = serve()
    page = browser(java_script_enabled=False).new_page()
    page.goto(f"{address}/account")
    page.fill("#f-name", "theo")
    page.fill("#f-password", "wrong")
    page.click("[data-testid=submit]")
    page.wait_for_selector("[data-testid=error]")
    page.fill("#f-password", GOOD)
    page.click("[data-testid=submit]")
    page.wait_for_selector("[data-testid=account]")


@pytest.mark.req("R-ACCESS-03", "R-ACCESS-04")
def test_an_administrator_adds_a_person_and_pairs_a_screen(serve, browser, troubles, store):
    _, address = serve()
    context = browser()
    context.add_cookies([browser_cookie(store, address, "administrator")])
    page = context.new_page()
    found = troubles(page)
    page.goto(f"{address}/users")
    page.fill("#f-full_name", "Li Wei")
    page.fill("#f-name", "li.wei")
    page.check("input[value=radiologist]")
    page.click("[data-testid=submit]")
    assert len(page.inner_text("[data-testid=secret]")) == 19
    page.goto(f"{address}/screens")
    page.fill("#f-name", "CT-1 console")
    page.click("[data-testid=submit]")
    code = page.inner_text("[data-testid=secret]")
    kiosk = browser(viewport={"width": 800, "height": 480}).new_page()
    found_there = troubles(kiosk)
    kiosk.goto(f"{address}/pair")
    assert kiosk.evaluate("document.querySelector('[data-testid=submit]').offsetHeight") >= 48
    kiosk.fill("[data-testid=code]", code)
    kiosk.keyboard.press("Enter")
    kiosk.wait_for_url(f"{address}/alert")
    kiosk.wait_for_selector("html[data-connection=live]")
    assert store.screens.all()[0].paired_at is not None
    page.goto(f"{address}/screens")
    page.click("[data-testid='screen-CT-1 console'] button")
    page.fill("dialog[open] [name=reason]", "the console is scrapped")
    page.click("dialog[open] .danger")
    page.wait_for_selector("[data-testid=screens]", state="detached")
    kiosk.wait_for_url(f"{address}/sign-in?*")  # by itself, which would come between us and another address
    kiosk.goto(f"{address}/alert")
    assert "/sign-in" in kiosk.url
    # The screen may have asked once more before it had left.
    assert [one for one in found + found_there if "status of 401" not in one] == []
