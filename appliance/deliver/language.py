"""A statement in the language of a site: its texts come from the package, its sentences from the catalogue.

What the statement itself holds is English, as in the report beside it; what is told anew says nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from appliance.records import Detail, Outcome, Reason
from appliance.report.sentences import LATE, REASONS
from appliance.store.said import Said
from appliance.web.i18n import Catalogues, language_of
from engines.errors import PackageError
from engines.manifest import Manifest
from engines.package import parse_manifest

Gettext = Callable[[str], str]


class Language:
    """One language other than English."""

    def __init__(self, locale: str) -> None:
        """Read the catalogue of ``locale``; raises ``ConfigError`` where it is damaged."""
        self.gettext: Gettext = Catalogues().of(locale).gettext
        self._key = language_of(locale)

    def tell(self, statement: dict[str, Any], said: Said | None) -> dict[str, Any]:
        """The statement with every text for a person in this language.

        Args:
            statement: As ``report.statement.build_statement`` makes it.
            said: The analysis that it tells of; what is not known of it stays English.
        """
        texts = self._texts(said)
        titles = texts.get("findings", {})
        findings = [{**one, "title": titles.get(one["id"], one["title"])} for one in statement["findings"]]
        return {
            **statement,
            "permitted_use": [self.gettext(text) for text in statement["permitted_use"]],
            "package": {**statement["package"], "title": texts.get("title", statement["package"]["title"])},
            "findings": findings,
            "summary": " ".join([*_review_words(statement), self._summary(statement["outcome"], findings)]),
            "reason_text": self._reason(statement, said),
            "looked_for": texts.get("looked_for", statement["looked_for"]),
            "not_looked_for": texts.get("not_looked_for", statement["not_looked_for"]),
            "caveats": self._caveats(statement, said),
        }

    def _texts(self, said: Said | None) -> dict[str, Any]:
        manifest = _manifest(said)
        if manifest is None:
            return {}
        names = ("title", "looked_for", "not_looked_for")
        return {
            **{name: getattr(getattr(manifest, name), self._key) for name in names},
            "findings": {one.id: getattr(one.title, self._key) for one in manifest.findings},
        }

    def _summary(self, outcome: str, findings: list[dict[str, Any]]) -> str:
        """In the words of ``report.sr``, which says why they are so."""
        gettext = self.gettext
        if outcome == Outcome.NOT_ANALYSED:
            return gettext("Not analysed.")
        flagged, others = (
            gettext(", ").join(one["title"] for one in findings if one["flagged"] is wanted) for wanted in (True, False)
        )
        words = []
        if outcome == Outcome.NOTHING_FLAGGED:
            words.append(gettext("Nothing flagged."))
        elif flagged:
            words.append(Detail("{titles}.", {"titles": flagged}).told(gettext))
        if others:
            detail = Detail("Not flagged: {titles}. What is not flagged is not excluded.", {"titles": others})
            words.append(detail.told(gettext))
        return " ".join(words) or gettext("See the measurements.")

    def _reason(self, statement: dict[str, Any], said: Said | None) -> str:
        if not statement["reason"]:
            return ""
        sentence = REASONS[Reason(statement["reason"])]
        if said is None:
            rest = statement["reason_text"].removeprefix(str(sentence)).strip()
        else:
            rest = "; ".join(detail.told(self.gettext) for detail in said.result.details)
        return f"{sentence.told(self.gettext)} {rest}".strip()

    def _caveats(self, statement: dict[str, Any], said: Said | None) -> list[str]:
        if said is None:
            return [self.gettext(text) for text in statement["caveats"]]
        told = [detail.told(self.gettext) for detail in (*said.result.caveats, *said.result.warnings)]
        return told + [LATE.told(self.gettext)] * statement["late"]


def _review_words(statement: dict[str, Any]) -> list[str]:
    """What a radiologist signed, as it was written."""
    review = statement.get("review")
    return list(review["words"]) if review else []


def _manifest(said: Said | None) -> Manifest | None:
    """Of the version that made the analysis; None where this software does not know or understand it."""
    if said is None or not said.manifest:
        return None
    try:
        return parse_manifest(said.manifest.encode())
    except PackageError:
        return None
