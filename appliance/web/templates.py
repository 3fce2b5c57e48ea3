"""Jinja templates: everything escaped, nothing undefined, one environment per locale."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from appliance.records import Detail
from appliance.web.assets import Assets
from appliance.web.i18n import LOCALES, Catalogues, language_of

#: A part of a sentence that names a command of ours, or an option of one.
_COMMAND = re.compile(r"'scanside [a-z]|(?<!\S)--[a-z]")


class Templates:
    """The templates of some folders."""

    def __init__(self, folders: tuple[Path, ...], assets: Assets, catalogues: Catalogues) -> None:
        """Look for templates in ``folders``, in that order."""
        self._catalogues = catalogues
        self._environments = {locale: _environment(folders, assets, catalogues, locale) for locale in LOCALES}

    def render(self, locale: str, name: str, /, **values: Any) -> str:
        """Render a template in a locale of ``LOCALES``."""
        return self._environments[locale].get_template(name).render(values)

    def translated(self, locale: str, text: str) -> str:
        """A message id in a locale, for what is no page."""
        return self._catalogues.of(locale).gettext(text)


def _environment(folders: tuple[Path, ...], assets: Assets, catalogues: Catalogues, locale: str) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        extensions=["jinja2.ext.i18n"],
    )
    translations = catalogues.of(locale)
    environment.install_gettext_translations(translations, newstyle=True)  # type: ignore[attr-defined]
    tag, _ = LOCALES[locale]
    language = language_of(locale)

    def text(bilingual: Mapping[str, str]) -> str:
        return bilingual.get(language) or bilingual.get("en", "")

    def told(detail: Detail) -> str:
        return detail.told(translations.gettext)

    def in_words(why: str) -> tuple[str, bool]:
        own = translations.gettext(why) if why else why
        return without_commands(own), own == why and locale != "en"

    environment.filters |= {
        "text": text,
        "told": told,
        "clock": clock,
        "epoch_ms": epoch_ms,
        "in_words": in_words,
        "moment": moment,
        "second": second,
    }
    environment.globals |= {
        "asset": assets.url,
        "build": assets.build,
        "locale": locale,
        "lang": tag,
        "locales": LOCALES,
        "zone": zone,
    }
    return environment


def clock(at: datetime) -> str:
    """Hour and minute in the box's time zone."""
    return at.astimezone().strftime("%H:%M")


def moment(at: datetime) -> str:
    """Day, hour and minute in the box's time zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def second(at: datetime) -> str:
    """The same with seconds."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def zone() -> str:
    """The box's time zone, by which every page tells the time: ``UTC+08:00``."""
    text = datetime.now().astimezone().strftime("%z")
    return f"UTC{text[:3]}:{text[3:5]}"


def without_commands(why: str) -> str:
    """Why something was not done, without what only helps who sits at a command line."""
    return "; ".join(part for part in why.split("; ") if not _COMMAND.search(part)) or why


def epoch_ms(at: datetime) -> int:
    """For scripts that count from then."""
    return int(at.timestamp() * 1000)
