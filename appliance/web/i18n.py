"""Texts of the pages by gettext. Catalogues are read as ``.po`` and compiled in memory at start: no build step."""

from __future__ import annotations

import io
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from babel.support import Translations

from appliance.errors import ConfigError

#: Locale of the catalogue: language tag in HTML (BCP 47), and the language's own name in the switch.
LOCALES = {"en": ("en", "English"), "zh_Hans_CN": ("zh-Hans-CN", "中文")}
DOMAIN = "scanside"
FOLDER = Path(__file__).parent / "locales"


def N_(text: str) -> str:  # noqa: N802 - gettext's own name for it
    """Mark a text for extraction where it is not yet known in which language it will be shown."""
    return text


def language_of(locale: str) -> str:
    """The key of a package's bilingual texts (``Text`` of its manifest) for a locale."""
    return "zh_Hans" if locale.startswith("zh") else "en"


def language_tag(locale: str) -> str:
    """The BCP 47 tag of a locale."""
    return LOCALES[locale][0]


class Catalogues:
    """The translations of every locale."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Read ``<locale>/LC_MESSAGES/scanside.po`` of each locale.

        Raises:
            ConfigError: A catalogue is missing or damaged.
        """
        self._by_locale = {locale: _compiled(folder, locale) for locale in LOCALES}

    def of(self, locale: str) -> Translations:
        """The translations of a locale of ``LOCALES``."""
        return self._by_locale[locale]


def _compiled(folder: Path, locale: str) -> Translations:
    path = folder / locale / "LC_MESSAGES" / f"{DOMAIN}.po"
    try:
        with path.open("rb") as file:
            catalogue = read_po(file, locale=locale, domain=DOMAIN, abort_invalid=True)
    except (OSError, ValueError, PoFileError) as error:
        raise ConfigError(f"{path}: texts cannot be read: {error}; reinstall Scanside") from error
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return Translations(compiled, domain=DOMAIN)
