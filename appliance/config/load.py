"""From YAML files to a checked ``Config``; every fault is told with its file, line and key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from appliance.config.alerts import SINK_KINDS
from appliance.config.box import Config
from appliance.config.destinations import DESTINATION_KINDS
from appliance.config.plain import KeyPath, read_plain
from appliance.errors import ConfigError

_TAGS = frozenset({*DESTINATION_KINDS, *SINK_KINDS})


def _read(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    try:
        data, lines = read_plain(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}; name an existing file with --config"
        raise ConfigError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path}: is not YAML: it is no text in UTF-8; is this the right file?"
        raise ConfigError(msg) from error
    except ConfigError as error:
        msg = f"{path}: {error}"
        raise ConfigError(msg) from error
    if not isinstance(data, dict):
        msg = f"{path}: line 1: expected 'key: value' lines; start from config/appliance.yaml"
        raise ConfigError(msg)
    return data, lines


def _merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay wins; mappings merge key by key, lists are replaced whole."""
    out = dict(base)
    for key, value in overlay.items():
        mine = out.get(key)
        out[key] = _merged(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return out


def load_config(path: Path, *overlays: Path | None) -> Config:
    """Read and check a configuration.

    Args:
        path: The YAML file, as ``config/appliance.yaml``.
        overlays: Further files, each of whose keys win over those before; lists are replaced whole. None is left out.

    Raises:
        ConfigError: Naming each fault with file, line and key.
    """
    data, lines = _read(path)
    where = dict.fromkeys(lines, path)
    for overlay in overlays:
        if overlay is None:
            continue
        site, site_lines = _read(overlay)
        data = _merged(data, site)
        lines |= site_lines
        where |= dict.fromkeys(site_lines, overlay)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            # Pydantic puts a union's tag into the path; it stands in no file.
            loc = fault["loc"]
            if loc[:1] in (("destinations",), ("alert_sinks",)) and loc[2:3] and loc[2] in _TAGS:
                loc = (*loc[:2], *loc[3:])
            known = next((loc[:n] for n in range(len(loc), 0, -1) if loc[:n] in lines), ())
            key = ".".join(str(part) for part in loc) or "the file"
            hint = "; remove it or see config/appliance.yaml" if fault["type"] == "extra_forbidden" else ""
            place = f"{where.get(known, path)}: line {lines.get(known, 1)}"
            faults.append(f"{place}: {key}: {fault['msg'].removeprefix('Value error, ')}{hint}")
        raise ConfigError("\n".join(faults)) from error
