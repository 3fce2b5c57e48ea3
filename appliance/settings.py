"""The site's settings: the last and strongest file of the configuration, written by the pages of the box itself.

``<state_path>/site.yaml`` holds only what differs from the files below it. Whoever changes it is shown what changes and
says why; it counts from the next start. The copy with which the box last started well is kept beside it: when the
file does not fit, the box starts with that copy, else without any, and says so, rather than staying down.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from appliance.config import Config, load_config
from appliance.config.plain import KeyPath, read_plain
from appliance.errors import ConfigError

NAME, GOOD_NAME = "site.yaml", "site.good.yaml"
#: What a hospital changes. Where files lie and what a developer tunes stays in the files that an installer writes.
SECTIONS = (
    "site",
    "dicom",
    "sources",
    "destinations",
    "packages",
    "worklist",
    "completeness",
    "retention",
    "screen",
    "alert_sinks",
    "review",
)
#: How a start that failed hands on to the next one which files to leave out, and why.
ATTEMPT_VARIABLE, BROKEN_VARIABLE = "SCANSIDE_SETTINGS_ATTEMPT", "SCANSIDE_SETTINGS_BROKEN"
_PLACE = re.compile(r"^.*?: line \d+: ", re.MULTILINE)
#: Characters of a text that comes over a page: ten times the settings of a large hospital, and read in a moment.
LONGEST = 64 * 1024
_HEAD = "# The settings of this site, written by the pages of the box. They win over its other files.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration and the files that it came from.

    Attributes:
        config: As the box runs it.
        base: The configuration file.
        site: Its overlay, if one was named.
        settings: The site's settings that count now; None: none.
        broken: Why newer settings do not count; empty: they do, or there are none.
        unreadable: The caller may not look whether there are settings.
    """

    config: Config
    base: Path
    site: Path | None
    settings: Path | None = None
    broken: str = ""
    unreadable: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """In the order in which they count; a later one wins."""
        return tuple(path for path in (self.base, self.site, self.settings) if path is not None)


def load_box(base: Path, site: Path | None = None, *, attempt: int = 0, broken: str = "") -> Loaded:
    """The configuration of a box: file, overlay, settings of the site.

    Args:
        base: The configuration file.
        site: Its overlay.
        attempt: 0: the settings; 1: those with which the box last started well; 2: none. Later ones are tried by
            themselves.
        broken: Why this is not the first attempt.

    Raises:
        ConfigError: The files that an installer wrote do not fit.
    """
    below = load_config(base, site)
    names = ((NAME, GOOD_NAME) if attempt == 0 else (GOOD_NAME,)) if attempt < 2 else ()
    for name in names:
        path = below.state_path / name
        try:
            if not path.exists():
                continue
            return Loaded(config=load_config(base, site, path), base=base, site=site, settings=path, broken=broken)
        except PermissionError:
            return Loaded(config=below, base=base, site=site, unreadable=True)
        except ConfigError as error:
            broken = broken or str(error)
    return Loaded(config=below, base=base, site=site, broken=broken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Settings that fit, and are not written yet.

    Attributes:
        config: As the box would run it.
        text: Of the file.
        sections: Those that change.
        diff: What changes, as lines of a unified diff over the sections.
        before: Digest of the file that it was made from.
    """

    config: Config
    text: str
    sections: tuple[str, ...]
    diff: tuple[str, ...]
    before: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return _digest(self.text)


class Settings:
    """Reads, checks and writes the settings of one box."""

    def __init__(self, loaded: Loaded) -> None:
        """Work beside the files of a box that runs."""
        self.loaded = loaded
        self.path = loaded.config.state_path / NAME
        self._good_path = loaded.config.state_path / GOOD_NAME
        self._begun = _digest(_text(loaded.settings) if loaded.settings else "")

    @property
    def digest(self) -> str:
        """Of the file as it is now; empty: there is none."""
        return _digest(_text(self.path))

    @property
    def is_pending(self) -> bool:
        """Whether a restart would change anything."""
        return self.digest != self._begun

    def text(self) -> str:
        """The file as it is now; empty: there is none."""
        return _text(self.path)

    def next_config(self) -> Config:
        """As the box runs it from its next start; as it runs now where the file does not fit."""
        try:
            return load_box(self.loaded.base, self.loaded.site).config
        except ConfigError:
            return self.loaded.config

    def section(self, name: str) -> Any:
        """What the files say of a section, settings included; None: nothing."""
        return dump(self.next_config()).get(name)

    def propose(self, changes: Mapping[str, Any]) -> Proposal:
        """Check other values of some sections.

        Args:
            changes: Section: its whole value; None leaves it to the files below.

        Raises:
            ConfigError: It does not fit; every fault with its key.
        """
        unknown = [name for name in changes if name not in known_sections()]
        if unknown:
            raise ConfigError(f"{unknown[0]}: is no section of the settings; there are {', '.join(known_sections())}")
        below = dump(load_config(self.loaded.base, self.loaded.site))
        overlay = self._overlay()
        for name, value in changes.items():
            overlay.pop(name, None)
            different = _above(name, value, below.get(name))
            if different is not None:
                overlay[name] = different
        return self._checked(overlay)

    def propose_text(self, name: str, text: str) -> Proposal:
        """Check one section as a person wrote it.

        Raises:
            ConfigError: It does not fit; every fault with its line and key.
        """
        value, lines = read_yaml(text)
        with _told_by_line({(name, *path): line for path, line in lines.items()}):
            return self.propose({name: [] if value is None else value})

    def proposal_of(self, text: str) -> Proposal:
        """Check a whole file, as it was exported here or elsewhere.

        Raises:
            ConfigError: It is no YAML mapping, or does not fit; every fault with its line and key.
        """
        overlay, lines = read_yaml(text)
        with _told_by_line(lines):
            return self._proposed({} if overlay is None else overlay)

    def _proposed(self, overlay: Any) -> Proposal:
        if not isinstance(overlay, dict):
            raise ConfigError("the text is no mapping of sections, as 'site:' with its keys below")
        unknown = [str(name) for name in overlay if name not in known_sections()]
        if unknown:
            raise ConfigError(f"{unknown[0]}: is no section of the settings; there are {', '.join(known_sections())}")
        return self._checked(overlay)

    def write(self, proposal: Proposal) -> None:
        """Replace the file.

        Raises:
            ConfigError: It changed since the proposal was made, or cannot be written.
        """
        if self.digest != proposal.before:
            raise ConfigError("somebody else has changed the settings since; reload the page and look again")
        try:
            _replace(self.path, proposal.text)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror}; make room on the disk") from error

    def keep_as_good(self) -> None:
        """The box has started with these settings: keep them for a day when newer ones do not fit."""
        if self.loaded.settings is None or self.loaded.broken:
            return
        text = _text(self.loaded.settings)
        if text != _text(self._good_path):
            _replace(self._good_path, text)

    def _checked(self, overlay: dict[str, Any]) -> Proposal:
        text = _HEAD + yaml.safe_dump(overlay, allow_unicode=True, sort_keys=False, width=100) if overlay else ""
        # Of this check alone: two people may have theirs checked at once.
        tried = self.path.with_name(f".{NAME}.{secrets.token_hex(8)}.tried")
        try:
            tried.write_text(text, encoding="utf-8")
            config = load_config(self.loaded.base, self.loaded.site, tried if overlay else None)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror}; make room on the disk") from error
        except ConfigError as error:
            # The line is of a file that nobody sees; the key is what the person looks for.
            raise ConfigError(_PLACE.sub("", str(error))) from error
        finally:
            tried.unlink(missing_ok=True)
        if config.state_path != self.loaded.config.state_path:  # pragma: no cover - no section holds it
            raise ConfigError("state_path: is not changed here")
        old, new = dump(self.next_config()), dump(config)
        changed = tuple(name for name in known_sections() if old.get(name) != new.get(name))
        diff = [line for name in changed for line in _diff(name, old.get(name), new.get(name))]
        return Proposal(config=config, text=text, sections=changed, diff=tuple(diff), before=self.digest)

    def _overlay(self) -> dict[str, Any]:
        try:
            overlay = from_yaml(_text(self.path))
        except ConfigError:
            return {}
        return overlay if isinstance(overlay, dict) else {}


def known_sections() -> tuple[str, ...]:
    """The sections that this version has."""
    return tuple(name for name in SECTIONS if name in Config.model_fields)


def dump(config: Config) -> dict[str, Any]:
    """What the files said, as plain values; defaults are left out."""
    return config.model_dump(mode="json", exclude_unset=True)


def to_yaml(value: Any) -> str:
    """A section for a person to read and edit."""
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=100) if value not in (None, {}, []) else ""


def read_yaml(text: str) -> tuple[Any, dict[KeyPath, int]]:
    """What a person wrote in a page, and the line of each key and item.

    Raises:
        ConfigError: It is too long, or no YAML of plain values: in which line, and how to mend it.
    """
    if len(text) > LONGEST:
        raise ConfigError(
            f"the text has {len(text)} characters, and settings have at most {LONGEST}; is this the right file? Give"
            " one that 'Export YAML' made"
        )
    return read_plain(text, repeats=False)


def from_yaml(text: str) -> Any:
    """The value alone.

    Raises:
        ConfigError: As ``read_yaml``.
    """
    return read_yaml(text)[0]


@contextlib.contextmanager
def _told_by_line(lines: Mapping[KeyPath, int]) -> Iterator[None]:
    """Put before every fault the line of its key, where the text that a person wrote has that key."""
    try:
        yield
    except ConfigError as error:
        known = {tuple(map(str, path)): line for path, line in lines.items()}
        told = []
        for fault in str(error).splitlines():
            path = tuple(fault.partition(": ")[0].split("."))
            line = next((known[path[:n]] for n in range(len(path), 0, -1) if path[:n] in known), None)
            told.append(f"line {line}: {fault}" if line else fault)
        raise ConfigError("\n".join(told)) from error


def _above(name: str, value: Any, below: Any) -> Any:
    """What must stand in the file so that ``value`` counts; None: nothing.

    Raises:
        ConfigError: A key that stands below cannot be taken away from above.
    """
    if value is None or value == below:
        return None
    if not isinstance(value, dict) or not isinstance(below, dict):
        return value
    gone = [key for key in below if key not in value]
    if gone:
        raise ConfigError(f"{name}.{gone[0]}: is set in the box's own files; give it a value instead of removing it")
    return {key: item for key, item in value.items() if below.get(key) != item}


def _diff(name: str, old: Any, new: Any) -> list[str]:
    lines = difflib.unified_diff(to_yaml(old).splitlines(), to_yaml(new).splitlines(), n=2, lineterm="")
    return [f"# {name}", *(line for line in lines if not line.startswith(("---", "+++", "@@")))]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def _replace(path: Path, text: str) -> None:
    """Write a file so that a power cut leaves the old one or the new one."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
