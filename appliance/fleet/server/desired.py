"""Desired documents as people write them: a file, or single values over the one that stands; and what differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from appliance.config.plain import read_plain
from appliance.errors import ConfigError
from appliance.fleet.wire import Desired

_PACKAGES = "packages"


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that a box does not have as it should; None where a side does not say it."""

    key: str
    desired: str | None
    reported: str | None


def read_desired(text: str, source: str) -> Desired:
    """A whole document in YAML; what it does not say has its default.

    Args:
        text: The document.
        source: Where it is from, for what is told.

    Raises:
        ConfigError: Naming each fault with line and key.
    """
    try:
        data, lines = read_plain(text)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    try:
        return Desired.model_validate(data or {})
    except ValidationError as error:
        faults = []
        for loc, told in _faults(error):
            known = next((loc[:n] for n in range(len(loc), 0, -1) if loc[:n] in lines), ())
            faults.append(f"{source}: line {lines.get(known, 1)}: {_key(loc)}: {told}")
        raise ConfigError("\n".join(faults)) from error


def with_values(desired: Desired, pairs: Sequence[str]) -> Desired:
    """The document with single values in place of others; a package is named, not numbered.

    As ``health_every_s=30``, ``window.begin=02:00``, ``packages.ich-ct.role=silent``,
    ``packages.ich-ct.operating_points.bleeding=sensitive``; ``packages.ich-ct=`` leaves it out.

    Raises:
        ConfigError: A pair is none, or the document would not hold; the key is named.
    """
    document = desired.model_dump(mode="json", exclude_none=True)
    packages = {str(one["name"]): dict(one) for one in document.pop(_PACKAGES, [])}
    for pair in pairs:
        key, is_pair, value = pair.partition("=")
        path = key.split(".")
        if not is_pair or not all(path):
            raise ConfigError(f"{pair}: give KEY=VALUE, as window.begin=02:00")
        if path[0] == _PACKAGES:
            if len(path) == 1:
                raise ConfigError(f"{key}: name one, as packages.ich-ct.role=silent")
            if len(path) == 2 and not value:
                packages.pop(path[1], None)
                continue
            _put(packages.setdefault(path[1], {"name": path[1]}), key, path[2:], value)
        else:
            _put(document, key, path, value)
    try:
        return Desired.model_validate({**document, _PACKAGES: list(packages.values())})
    except ValidationError as error:
        names = list(packages)
        told = []
        for loc, what in _faults(error):
            is_package = len(loc) > 1 and loc[0] == _PACKAGES and isinstance(loc[1], int)
            named = (_PACKAGES, names[int(loc[1])], *loc[2:]) if is_package else loc
            told.append(f"{_key(named)}: {what}")
        raise ConfigError("\n".join(told)) from error


def differences(desired: Desired | None, reported: Desired | None) -> list[Difference]:
    """Value by value; empty where both say the same."""
    one, other = _flat(desired), _flat(reported)
    return [
        Difference(key, one.get(key), other.get(key))
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    ]


def _put(document: dict[str, Any], key: str, path: Sequence[str], value: str) -> None:
    """Put a value; an empty one takes the key out."""
    if not path:
        raise ConfigError(f"{key}: name what of it, as {key}.role=silent")
    for name in path[:-1]:
        document = document.setdefault(name, {})
        if not isinstance(document, dict):
            raise ConfigError(f"{key}: {name} has no parts")
    if value:
        document[path[-1]] = value
    else:
        document.pop(path[-1], None)


def _faults(error: ValidationError) -> list[tuple[tuple[int | str, ...], str]]:
    found = []
    for fault in error.errors(include_url=False, include_context=False):
        unknown = fault["type"] == "extra_forbidden"
        found.append((fault["loc"], "there is no such key; take it out" if unknown else fault["msg"]))
    return found


def _key(loc: Sequence[int | str]) -> str:
    return ".".join(map(str, loc)) or "the document"


def _flat(desired: Desired | None) -> dict[str, str]:
    if desired is None:
        return {}
    document = desired.model_dump(mode="json", exclude_none=True)
    packages = {one.pop("name"): one for one in document.pop(_PACKAGES, [])}
    listed = {f"{_PACKAGES}.{name}": "listed" for name in packages}
    return listed | dict(_leaves({**document, _PACKAGES: packages}, ""))


def _leaves(document: dict[str, Any], before: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in document.items():
        key = f"{before}{name}"
        if isinstance(value, dict):
            found += _leaves(value, f"{key}.")
        else:
            found.append((key, str(value).lower() if isinstance(value, bool) else str(value)))
    return found
