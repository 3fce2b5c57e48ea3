"""What the screen must know of a package: texts in both languages, and how far it may show a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engines.manifest import Manifest, Text


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingText:
    """A finding in words; ``title`` is what an alert says, whole: "Suspected bleed in the head" / "疑似颅内出血"."""

    title: Mapping[str, str]
    advice: Mapping[str, str]
    category: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageText:
    """A package in words; texts by language, ``en`` and ``zh_Hans``."""

    title: Mapping[str, str]
    looked_for: Mapping[str, str]
    not_looked_for: Mapping[str, str]
    intended_use: str
    #: Whether its results make alerts here; silent and shadow packages are never shown.
    live: bool
    findings: Mapping[str, FindingText]

    @property
    def shows_place(self) -> bool:
        """Whether a picture or slice numbers may be shown; for a ``triage`` package that would be a region."""
        return self.intended_use != "triage"

    def words(self, finding: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Title and advice of a finding; one that is not known is told by its id."""
        text = self.findings.get(finding)
        return (text.title, text.advice) if text else ({"en": finding, "zh_Hans": finding}, {})


def package_text(manifest: Manifest, *, live: bool) -> PackageText:
    """The texts of a loaded package."""
    return PackageText(
        title=_both(manifest.title),
        looked_for=_both(manifest.looked_for),
        not_looked_for=_both(manifest.not_looked_for),
        intended_use=manifest.intended_use,
        live=live,
        findings={
            finding.id: FindingText(title=_both(finding.title), advice=_both(finding.advice), category=finding.category)
            for finding in manifest.findings
        },
    )


def text_of(packages: Mapping[str, PackageText], name: str, version: str = "") -> PackageText:
    """The texts of the version that made an analysis; of the one that serves where only the name is known."""
    return packages.get(f"{name}@{version}") or packages.get(name) or unknown_package(name)


def unknown_package(name: str) -> PackageText:
    """Stands in for a package that is no longer on the box; its old results are still shown, without a place."""
    label = {"en": name, "zh_Hans": name}
    return PackageText(title=label, looked_for=label, not_looked_for={}, intended_use="triage", live=False, findings={})


def _both(text: Text) -> dict[str, str]:
    return {"en": text.en, "zh_Hans": text.zh_Hans}
