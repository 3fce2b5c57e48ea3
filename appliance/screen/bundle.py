"""The support bundle: what a service team needs to help, and nothing of a patient, no secret and no address.

Everything in it is chosen: codes, counts and times by name. Free text (what a person typed, what a peer answered) is
left out, because nobody can say what stands in it.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import platform
import re
import zipfile
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from appliance import __version__
from appliance.config import Config
from appliance.settings import dump, to_yaml
from appliance.store import Store
from appliance.store.facts import Kind
from appliance.store.journal import Fact

_ROWS = 2000
HIDDEN = "***"
#: What the bundle says of the configuration, value by value: numbers, choices among words of this software, and the
#: names by which its parts are told apart. Everything else, also what a later version adds, is left out: who and where,
#: and secrets.
_SHOWN = frozenset(
    {
        *("site.mode", "site.language", "site.profile", "site.technologist_detail"),
        *(f"dicom.{key}" for key in ("ae_title", "port", "require_called_ae", "unknown_sources", "max_associations")),
        *(f"dicom.{key}" for key in ("max_associations_per_host", "max_object_bytes", "pdu_deadline_s", "mpps")),
        *("dicom.network_timeout_s", "dicom.tls.ae_in_certificate"),
        *(f"sources.{key}" for key in ("name", "ae_title", "mode", "stat", "assume_charset", "commitment_port")),
        *(f"destinations.{key}" for key in ("kind", "name", "purpose", "outcomes", "packages", "timeout_s", "send")),
        *(f"destinations.{key}" for key in ("port", "ae_title", "calling_ae_title", "commitment", "charset")),
        *("destinations.processing_id", "destinations.language"),
        *(f"packages.{key}" for key in ("name", "role", "operating_points", "technologist_detail")),
        *("completeness.quiet_min_s", "completeness.quiet_max_s", "disk.reserve_bytes", "disk.reserve_fraction"),
        *(f"triage.{key}" for key in ("ct_deadline_s", "xray_deadline_s", "worker_threads", "spawn_worker")),
        *(f"engines.{key}" for key in ("backend", "precision", "keep", "build_limit_s", "build_memory_mb")),
        *("retention.images_h", "retention.results_days", "retention.journal_days"),
        *("kserve.packages", "kserve.timeout_s", "fleet.approval", "fleet.backlog_rows", "fleet.detail"),
        *(f"worklist.{key}" for key in ("port", "ae_title", "calling_ae_title", "timeout_s", "assume_charset")),
        *(f"alert_sinks.{key}" for key in ("kind", "name", "on", "off", "timeout_s")),
        *(f"screen.escalation.{key}_s" for key in ("repeat_after", "repeat_every", "tell_after", "overdue_after")),
        *("screen.escalation.remind_after_s", "screen.port"),
    }
)
#: Fields of facts that are codes, numbers or names of parts of the box.
_KEPT_FIELDS = frozenset(
    {
        *("version", "mode", "recovered", "by_s", "code", "severity", "package", "digest", "state", "previous", "days"),
        *("studies", "status", "how", "images", "size", "files", "ms", "attempt", "object", "outcome", "rule", "n"),
        *("late", "backend", "precision", "engine_digest", "flavour", "step", "share", "cause", "pid", "role", "times"),
        *(
            "objects",
            "committed",
            "failed",
            "deliveries",
            "paused",
            "ok",
            "sections",
            "change",
            "day",
            "rows",
            "through",
        ),
        *("category", "chime", "active", "same_outcome", "shadow_version", "live_version", "analyses", "through"),
    }
)
#: Kinds that tell who was where: not needed to mend a box.
_LEFT_OUT = frozenset(
    {
        *(Kind.SIGNED_IN, Kind.SIGN_IN_FAILED, Kind.SIGNED_OUT, Kind.ACCESS_DENIED, Kind.ACCESSED),
        *(Kind.ACCOUNT_CHANGED, Kind.TOKEN_CHANGED, Kind.QUALITY_DECIDED),
    }
)
_ADDRESS = re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b|\b[0-9a-fA-F]{0,4}(:[0-9a-fA-F]{0,4}){3,7}\b")


def make_bundle(store: Store, config: Config, doctor: Callable[[], dict[str, Any]]) -> bytes:
    """The bundle as a zip file. May take as long as ``doctor``."""
    values = dump(config)
    hidden = sorted({text for text in _hidden_values(values) if len(text) > 2}, key=len, reverse=True)

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: clean(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        if not isinstance(value, str):
            return value
        for one in hidden:
            value = value.replace(one, HIDDEN)
        return _ADDRESS.sub(HIDDEN, value)

    files = {
        "config.yaml": to_yaml(_redacted(values)),
        "status.json": _json(_status(store)),
        "issues.json": _json(_issues(store)),
        "doctor.json": _json(clean(doctor())),
        "journal.jsonl": "".join(json.dumps(_fact(fact, clean)) + "\n" for fact in _tail(store)),
        "versions.json": _json(_versions()),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, text in files.items():
            bundle.writestr(name, text)
    return out.getvalue()


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, default=str)


def _redacted(value: Any, path: str = "") -> Any:
    if value is None or path in _SHOWN:
        return value
    if isinstance(value, list):
        return [_redacted(item, path) for item in value]
    if isinstance(value, dict) and _leads_on(path):
        return {name: _redacted(item, f"{path}.{name}".lstrip(".")) for name, item in value.items()}
    return HIDDEN


def _leads_on(path: str) -> bool:
    return not path or any(one.startswith(f"{path}.") for one in _SHOWN)


def _hidden_values(value: Any, path: str = "") -> Iterable[str]:
    """Texts that are left out, so that no message names them either."""
    if path in _SHOWN:
        return
    if isinstance(value, dict):
        if path == "screen.oidc.roles":
            yield from value  # the groups; what they are given is a word of ours
            return
        for name, item in value.items():
            yield from _hidden_values(item, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for item in value:
            yield from _hidden_values(item, path)
    elif isinstance(value, str):
        yield value
        # The host of an address, which messages name without the rest.
        yield from re.findall(r"://([^/:?]+)", value)


def _status(store: Store) -> dict[str, Any]:
    now = store.db.clock.now()
    box = store.views.box()
    return {
        "at": now,
        "version": __version__,
        "schema_stream": store.db.stream,
        "journal": store.journal.last_seq(),
        "chain": {"through": store.chain.state.through, "broken_at": store.chain.state.broken_at},
        "receiving": len(box.receiving),
        "queued": box.queued,
        "studies_24_h": store.views.counts(now - timedelta(days=1)),
        "deliveries": [
            {"n": n, "owed": one.owed, "held": one.held, "parked": one.parked, "oldest_at": one.oldest_at}
            for n, one in enumerate(store.deliveries.backlog())
        ],
        "spool_free_bytes": store.spool.free_bytes(),
        "packages": [
            {
                "name": one.name,
                "version": one.version,
                "state": str(one.state),
                "digest": one.digest,
                "p95_ms": one.p95_ms,
            }
            for one in store.packages.all()
        ],
        "health": [
            {"at": point.at, "sample": {k: v for k, v in _slots(point.sample).items() if v is not None}}
            for point in store.health.between(now - timedelta(days=7), now, points=168)
        ],
    }


def _slots(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _issues(store: Store) -> list[dict[str, Any]]:
    rows = store.db.all("SELECT code, severity, since_at, cleared_at FROM issue ORDER BY id DESC LIMIT 500")
    return [dict(row) for row in rows]


def _tail(store: Store) -> list[Fact]:
    last = store.journal.last_seq()
    return [fact for fact in store.journal.after(max(last - _ROWS, 0), _ROWS) if fact.kind not in _LEFT_OUT]


def _fact(fact: Fact, clean: Callable[[Any], Any]) -> dict[str, Any]:
    body = {name: value for name, value in fact.body.items() if name in _KEPT_FIELDS}
    return {
        "seq": fact.seq,
        "at": fact.at,
        "kind": str(fact.kind),
        "actor": {"kind": fact.actor.get("kind"), "role": fact.actor.get("role")},
        "body": clean(body),
    }


def _versions() -> dict[str, Any]:
    return {
        "scanside": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libraries": {
            str(found.metadata["Name"]): found.version for found in importlib.metadata.distributions() if found.version
        },
    }
