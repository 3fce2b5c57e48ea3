"""The set-up of a new box: seven steps, each with a live check, and a sheet that says what was accepted.

The first step needs the one-time code that the box printed, and works only while there is no administrator. From the
second on an administrator is signed in; every step may be left and come back to, also over a restart.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from appliance.config import Config, DicomDestination
from appliance.errors import ApplianceError, ConfigError, ConflictError
from appliance.screen.context import Context
from appliance.screen.destinations import hint
from appliance.screen.parts_of_admin import stamp
from appliance.screen.screens import NAME as SCREEN_NAME
from appliance.screen.screens import new_code
from appliance.screen.settings import NOT_HERE, keep
from appliance.screen.setup_first import ORDER, STEPS, SetupFirst
from appliance.screen.setup_packages import in_order, offered
from appliance.screen.tools import Unavailable
from appliance.settings import Settings, dump
from appliance.store.facts import Kind
from appliance.web.access import ADMINISTRATORS, Guarded, caller_of
from appliance.web.app import Form, read_form
from appliance.web.i18n import N_

#: What the journal says of a change made here; a person may say more on the settings page.
REASON = "set-up"
CALL = re.compile(r"AE title '([^']{1,16})' from ([0-9a-fA-F.:]+)")
SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
BAD_SCREEN = N_("1 to 64 letters, digits, blanks and . _ -, beginning with a letter or digit.")


class SetupPages:
    """The wizard."""

    def __init__(self, context: Context) -> None:
        """Set the box behind ``context.tools`` up."""
        self._context = context
        self._store = context.store

    def routes(self) -> list[Guarded]:
        """The addresses."""
        saves = {
            "site": self.save_site,
            "receive": self.save_receive,
            "pacs": self.save_pacs,
            "models": self.save_models,
            "screen": self.save_screen,
            "test": self.begin_test,
        }
        return [
            *SetupFirst(self._context).routes(),
            Guarded("/setup/sheet", self.sheet, roles=ADMINISTRATORS),
            *(Guarded(f"/setup/{name}", save, roles=ADMINISTRATORS, methods=["POST"]) for name, save in saves.items()),
            Guarded("/setup/pacs/test", self.test_pacs, roles=ADMINISTRATORS, methods=["POST"]),
            Guarded("/setup/screen/sound", self.sound, roles=ADMINISTRATORS, methods=["POST"]),
            Guarded("/setup/screen/heard", self.heard, roles=ADMINISTRATORS, methods=["POST"]),
            Guarded("/setup/test/state", self.test_state, roles=ADMINISTRATORS),
            Guarded("/setup/{step}/check", self.check, roles=ADMINISTRATORS),
            Guarded("/setup/{step}", self.page, roles=ADMINISTRATORS),
        ]

    # Pages -----------------------------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        """One step."""
        name = request.path_params["step"]
        if name not in ORDER[1:]:
            return RedirectResponse("/setup", 303)
        return await self._page(request, name)

    async def check(self, request: Request) -> Response:
        """The live check of a step, asked every second."""
        name = request.path_params["step"]
        values = await self._context.pool.run(self._checked, name)
        return self._context.pages.page(request, "setup-check.html", step=name, stamp=stamp, hint=hint, **values)

    async def sheet(self, request: Request) -> Response:
        """What was accepted, to print and sign."""
        done = await self._context.pool.run(self._store.setup.steps)
        return self._context.pages.page(
            request,
            "setup-sheet.html",
            steps=STEPS,
            done=done,
            stamp=stamp,
            now=self._context.clock.now(),
            config=await self._context.pool.run(self._next),
            stream=self._store.db.stream,
        )

    # Acts ------------------------------------------------------------------------------------------------------

    async def save_site(self, request: Request) -> Response:
        """Name, language, mode."""
        given = await read_form(request)
        value = {"name": given.get("name", ""), "language": given.get("language", ""), "mode": given.get("mode", "")}
        detail = {"name": value["name"], "mode": value["mode"]}
        return await self._keep(request, "site", lambda _: {"site": value}, detail)

    async def save_receive(self, request: Request) -> Response:
        """AE title, port, and the scanners that may send."""
        given = await read_form(request)
        dicom = {"ae_title": given.get("ae_title", ""), "host": given.get("host", ""), "port": _number(given, "port")}
        sources: list[dict[str, Any]] = []
        for name, ae_title, address, mode in zip(
            *(given.getlist(key) for key in ("source_name", "source_ae", "source_address", "source_mode")), strict=False
        ):
            if name.strip() or ae_title.strip():
                addresses = [part for part in re.split(r"[\s,]+", address.strip()) if part]
                sources.append(
                    {"name": name.strip(), "ae_title": ae_title.strip(), "addresses": addresses, "mode": mode}
                )

        def changes(below: dict[str, Any]) -> dict[str, Any]:
            # What the form does not show of a source stays as it was.
            known = {one["name"]: one for one in below.get("sources", [])}
            return {"dicom": dicom, "sources": [{**known.get(one["name"], {}), **one} for one in sources]}

        scanners = [one["name"] for one in sources]
        detail = {"ae_title": dicom["ae_title"], "port": dicom["port"], "scanners": scanners}
        return await self._keep(request, "receive", changes, detail)

    async def save_pacs(self, request: Request) -> Response:
        """Where results go."""
        given = await read_form(request)
        name = given.get("name", "").strip() or "PACS"
        new = {
            "kind": "dicom",
            "name": name,
            "host": given.get("host", "").strip(),
            "port": _number(given, "port"),
            "ae_title": given.get("ae_title", "").strip(),
            "purpose": "test" if given.get("test") == "on" else "clinical",
            "send": given.getlist("send") or ["original", "sr"],
        }

        def changes(below: dict[str, Any]) -> dict[str, Any]:
            there: list[dict[str, Any]] = below.get("destinations", [])
            old: dict[str, Any] = next((one for one in there if one.get("name") == name), {})
            return {"destinations": [*(one for one in there if one.get("name") != name), {**old, **new}]}

        return await self._keep(request, "pacs", changes, {"name": name, "ae_title": new["ae_title"]}, stay=True)

    async def test_pacs(self, request: Request) -> Response:
        """Ask the PACS of the settings whether it takes what it is to get, before any restart."""
        pacs = self._pacs(await self._context.pool.run(self._next))
        if pacs is None:
            return await self._page(request, "pacs", status=409, trouble=N_("Save the PACS first."))
        actor = caller_of(request).actor

        def ask() -> None:
            found = self._context.tools.probe(pacs)
            self._store.destinations.tested(pacs.name, ok=found.ok, ms=found.ms, words=found.words, actor=actor)

        await self._context.probing.run(ask)
        return RedirectResponse("/setup/pacs", 303)

    async def save_models(self, request: Request) -> Response:
        """Which packages of this software run, and how."""
        given = await read_form(request)
        roles = {name: given.get(f"role-{name}", "off") for name in await self._context.pool.run(in_order)}
        chosen = {name: role for name, role in roles.items() if role != "off"}

        def changes(below: dict[str, Any]) -> dict[str, Any]:
            known = {one["name"]: one for one in below.get("packages", [])}
            return {"packages": [{**known.get(name, {}), "name": name, "role": role} for name, role in chosen.items()]}

        return await self._keep(request, "models", changes, {"packages": chosen})

    async def save_screen(self, request: Request) -> Response:
        """A code for the alert screen."""
        given = await read_form(request)
        name, sources = given.get("name", "").strip(), given.getlist("source")
        if not SCREEN_NAME.fullmatch(name):
            return await self._page(request, "screen", status=422, trouble=BAD_SCREEN)
        code = new_code()
        try:
            await self._context.pool.run(self._store.screens.offer, name, sources, code, caller_of(request).actor)
        except ConflictError as error:
            return await self._page(request, "screen", status=409, trouble=str(error))
        return await self._page(request, "screen", code=f"{code[:3]} {code[3:]}")

    async def sound(self, request: Request) -> Response:
        """A test alert on every screen."""
        await read_form(request)
        with suppress(ConflictError):  # one goes on: it sounds
            await self._context.pool.run(self._store.alert_tests.begin, "", caller_of(request).actor)
        return RedirectResponse("/setup/screen", 303)

    async def heard(self, request: Request) -> Response:
        """Whether the sound was heard."""
        was_heard = (await read_form(request)).get("heard") == "yes"
        screens = [one.name for one in await self._context.pool.run(self._store.screens.all) if one.paired_at]
        await self._context.pool.run(
            self._store.setup.done, "screen", {"heard": was_heard, "screens": screens}, caller_of(request).actor
        )
        return RedirectResponse("/setup/test" if was_heard else "/setup/screen", 303)

    async def begin_test(self, request: Request) -> Response:
        """Send a simulated study to our own receiver."""
        await read_form(request)
        try:
            await self._context.pool.run(self._context.tools.begin_test)
        except ApplianceError as error:
            return await self._page(request, "test", status=409, trouble=str(error))
        return RedirectResponse("/setup/test", 303)

    async def test_state(self, request: Request) -> Response:
        """How far the test study is; its end is kept for the sheet."""
        state = self._context.tools.test
        shown = {name: getattr(state, name) for name in state.__slots__}
        if state.state == "done":
            done = await self._context.pool.run(self._store.setup.steps)
            if "test" not in done or done["test"].detail.get("run") != state.run:
                await self._context.pool.run(self._store.setup.done, "test", shown, caller_of(request).actor)
        return JSONResponse(shown)

    # Inside ----------------------------------------------------------------------------------------------------

    def _settings(self) -> Settings:
        settings = self._context.tools.settings
        if settings is None:
            raise Unavailable(NOT_HERE)
        return settings

    def _next(self) -> Config:
        settings = self._context.tools.settings
        return settings.next_config() if settings is not None else self._context.config

    async def _keep(
        self,
        request: Request,
        step: str,
        changes: Callable[[dict[str, Any]], Mapping[str, Any]],
        detail: Mapping[str, Any],
        *,
        stay: bool = False,
    ) -> Response:
        """Check and write what ``changes`` makes of the present sections; then to the next step."""

        def act() -> None:
            settings = self._settings()
            below = dump(settings.next_config())
            whole = {
                name: {**below.get(name, {}), **value} if isinstance(value, dict) else value
                for name, value in changes(below).items()
            }
            proposal = settings.propose(whole)
            if proposal.sections:
                keep(self._context, proposal, REASON, request)
            self._store.setup.done(step, detail, caller_of(request).actor)

        try:
            await self._context.pool.run(act)
        except ConfigError as error:
            return await self._page(request, step, status=422, trouble=str(error))
        onward = step if stay else ORDER[ORDER.index(step) + 1]
        return RedirectResponse(f"/setup/{onward}", 303)

    async def _page(self, request: Request, name: str, *, status: int = 200, **values: Any) -> Response:
        shown = await self._context.pool.run(self._shown, name)
        return self._context.pages.page(
            request,
            f"setup-{name}.html",
            status=status,
            steps=STEPS,
            step=name,
            stamp=stamp,
            hint=hint,
            onward="setup",
            restarts=self._context.tools.restarts,
            **({"trouble": "", "code": ""} | shown | values),
        )

    def _shown(self, name: str) -> dict[str, Any]:
        settings = self._context.tools.settings
        config = self._next()
        shown: dict[str, Any] = {
            "done": self._store.setup.steps(),
            "config": config,
            "pending": settings is not None and settings.is_pending,
            "ports": self._context.tools.ports,
            **self._checked(name),
        }
        if name == "receive":
            shown |= {"protocols": self._store.setup.protocols(), "spare": secrets.token_hex(2)}
        if name == "pacs":
            shown |= {"pacs": self._pacs(config)}
        if name == "models":
            shown |= {"offered": offered(), "roles": {one.name: str(one.role) for one in config.packages}}
        if name == "test":
            shown |= {"test": self._context.tools.test}
        return shown

    def _checked(self, name: str) -> dict[str, Any]:
        """What the live check of a step shows."""
        if name == "receive":
            return {"calls": self._calls()}
        if name == "pacs":
            pacs = self._pacs(self._next())
            return {"state": self._store.destinations.get(pacs.name) if pacs else None}
        if name == "screen":
            tests = self._store.alert_tests.open()
            return {
                "screens": self._store.screens.all(),
                "sounding": bool(tests),
                "presented": any(one.is_presented for one in tests),
            }
        if name == "site":
            return {"now": self._context.clock.now(), "is_synchronised": SYNCHRONISED.exists()}
        return {}

    def _calls(self) -> list[dict[str, Any]]:
        """Who called: accepted ones, and those that were refused because nobody listed them."""
        calls = [{**one, "refused": False} for one in self._store.setup.callers()]
        known = {(one["calling_ae"], one["address"]) for one in calls}
        listed = {(one.ae_title.strip()) for one in self._next().sources}
        last = self._store.journal.last_seq()
        for fact in reversed(self._store.journal.after(max(last - 5000, 0), 5000, (Kind.REFUSED,))):
            found = CALL.search(fact.body["message"])
            if found and (found[1], found[2]) not in known:
                known.add((found[1], found[2]))
                calls.append(
                    {
                        "calling_ae": found[1],
                        "address": found[2],
                        "source": "",
                        "refused": True,
                        "listed": found[1].strip() in listed,
                        "images": 0,
                        "n": 1,
                    }
                )
        return calls[:12]

    @staticmethod
    def _pacs(config: Config) -> DicomDestination | None:
        return next((one for one in config.destinations if isinstance(one, DicomDestination)), None)


def _number(given: Form, name: str) -> Any:
    text = given.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
