"""How the worker answers each message: limits around foreign work, errors turned into reasons."""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import cv2

from appliance.dicom.pixels import same_pixels
from appliance.errors import NotAnalysable
from appliance.records import Detail, Reason
from appliance.triage.analysis import Analysis, Tools
from appliance.triage.engine_desk import EngineDesk, LookAgain, end_lost, loaded_message
from appliance.triage.engine_messages import Build, SpotCheck
from appliance.triage.frames import ProtocolError
from appliance.triage.protocol import (
    Add,
    Compare,
    Compared,
    Drop,
    Failed,
    Finish,
    Load,
    Loaded,
    Open,
    Progress,
    Refused,
    Result,
    ToWorker,
    Unload,
)
from appliance.triage.workbench import decode_and_prepare
from engines.errors import ContentError, EngineError, SessionError

log = logging.getLogger(__name__)

#: One file ahead of time: a JPEG 2000 slice takes 50 ms, an enhanced object of 1,000 frames half a minute.
DECODE_LIMIT_S = 60.0
LOAD_LIMIT_S = 120.0
_DETAIL = 1000


class Desk:
    """Answers messages. One thread uses it."""

    def __init__(self, tools: Tools, engines: EngineDesk) -> None:
        """Work with ``tools``; what is asked of engines goes to ``engines``."""
        # OpenCV's own threads would fight those of the inference.
        cv2.setNumThreads(1)
        self._tools = tools
        self._engines = engines

    def handle(self, message: ToWorker | LookAgain) -> None:
        """Do what a message asks for, answer included."""
        if isinstance(message, Finish):
            opened = self._tools.shelf.package(message.package)
            before = opened.fallback if opened is not None else ""
            self._tools.say(self._finish(message))
            # After the result, which an alert may wait for: a server that stopped, or began again, to compute.
            if opened is not None and opened.fallback != before:
                self._tools.say(loaded_message(message.package, opened, 0.0))
        elif isinstance(message, Add):
            self._add(message)
        elif isinstance(message, Open):
            self._tools.shelf.begin(message.series_key, message.kind, message.packages)
        elif isinstance(message, Drop):
            self._tools.shelf.drop(message.series_key)
        elif isinstance(message, Compare):
            self._tools.say(self._compare(message))
        elif isinstance(message, Load):
            self._tools.say(self._load(message))
        elif isinstance(message, Build):
            self._engines.build(message)
        elif isinstance(message, SpotCheck):
            self._engines.check(message)
        elif isinstance(message, LookAgain):
            self._engines.look_again(message)
        elif isinstance(message, Unload):
            self._tools.shelf.unload(message.package)

    @staticmethod
    def give_memory_back() -> None:
        """Return what was freed to the system; the allocator would keep the peak of the largest CT for ever."""
        gc.collect()
        with suppress(AttributeError):  # glibc's; others need no reminder
            ctypes.CDLL(None).malloc_trim(0)

    def _load(self, message: Load) -> Loaded | Refused:
        begun = time.perf_counter()
        if (message.engine is not None or message.kserve is not None) and not message.no_engine:
            self._tools.say(Progress(step="engine", package=message.package))
        try:
            with self._tools.limited(LOAD_LIMIT_S):
                opened = self._tools.shelf.load(
                    message.package,
                    Path(message.folder),
                    message.digest,
                    message.keys,
                    engine=message.engine,
                    kserve=message.kserve,
                    no_engine=message.no_engine,
                )
        except EngineError as error:
            if isinstance(error, SessionError) and error.sticky:
                end_lost(self._tools.say, message.package, error)
            why = str(error)
        except MemoryError:
            why = "the worker has not enough memory to load it"
        except Exception as error:
            log.exception("package %s", message.package)
            why = f"{type(error).__name__} while it was loaded; the worker's log has more"
        else:
            return loaded_message(message.package, opened, (time.perf_counter() - begun) * 1000)
        return Refused(package=message.package, message=why[:_DETAIL])

    def _add(self, message: Add) -> None:
        """Prepare ahead of time. What goes wrong here goes wrong again, and is told, when the series is finished."""
        kind = self._tools.shelf.kind_of(message.series_key)
        pipelines = self._tools.shelf.wants(message.series_key, message.version_key)
        if kind is None or not pipelines:
            return
        self._tools.say(Progress(step="decode", series_key=message.series_key, version_key=message.version_key))
        try:
            with self._tools.limited(DECODE_LIMIT_S):
                piece = decode_and_prepare(self._tools.path(message.path), kind, pipelines)
        except (NotAnalysable, ProtocolError, OSError, MemoryError):
            return
        except Exception:
            log.exception("version %s", message.version_key)
            return
        self._tools.shelf.put(message.series_key, message.version_key, piece)

    def _compare(self, message: Compare) -> Compared:
        self._tools.say(Progress(step="compare"))
        try:
            with self._tools.limited(message.limit_s):
                same = same_pixels(self._tools.path(message.path_a), self._tools.path(message.path_b))
            return Compared(request_id=message.request_id, same=same)
        except (NotAnalysable, ProtocolError) as error:
            why = str(error)
        except OSError as error:
            why = f"a file of the spool cannot be read: {error.strerror}"
        except Exception as error:
            log.exception("comparison %d", message.request_id)
            why = type(error).__name__
        return Compared(request_id=message.request_id, same=False, detail=why[:_DETAIL])

    def _finish(self, message: Finish) -> Result | Failed:
        hops_ms: dict[str, float] = {}
        opened = self._tools.shelf.package(message.package)
        details: Iterable[Detail]
        if opened is None:
            reason, details = Reason.AI_UNAVAILABLE, [Detail("the AI package is not loaded")]
        else:
            try:
                return Analysis(self._tools, message, opened, hops_ms).run()
            except NotAnalysable as error:
                reason, details = error.reason, error.details
            except ContentError as error:
                reason, details = Reason(error.reason), [Detail(error.message.text, error.message.values)]
            except (EngineError, ProtocolError) as error:
                if isinstance(error, SessionError) and error.sticky:
                    end_lost(self._tools.say, message.package, error)
                reason, details = Reason.FAILED, [Detail("fault in the AI engine: {fault}", {"fault": str(error)})]
            except OSError as error:
                fault = error.strerror or type(error).__name__
                reason, details = Reason.FAILED, [Detail("a stored image cannot be read: {fault}", {"fault": fault})]
            except MemoryError:
                self._tools.shelf.drop_all()
                reason, details = Reason.FAILED, [Detail("the analysis needs more memory than it may take")]
            except Exception as error:  # one study's bug must not take the worker from the next
                log.exception("analysis %d of %s", message.analysis_id, message.study)
                reason, details = (
                    Reason.FAILED,
                    [Detail("fault in the analysis ({fault}); the log has more", {"fault": type(error).__name__})],
                )
        return Failed(
            analysis_id=message.analysis_id,
            reason=reason,
            details=tuple(map(_sendable, details)),
            package_digest=opened.package.digest if opened is not None else "",
            hops_ms=hops_ms,
        )


def _sendable(detail: Detail) -> Detail:
    """With values that the protocol takes: short, and numbers that JSON has."""
    values: dict[str, str | int | float] = {}
    for name, value in detail.values.items():
        is_finite = not isinstance(value, float) or math.isfinite(value)
        values[name] = value[:_DETAIL] if isinstance(value, str) else value if is_finite else str(value)
    return Detail(detail.text, values)
