"""YAML as a configuration uses it: text, numbers, yes and no, lists and mappings; whatever else it can say is refused.

A file may have been written by hand, exported from another box, or be no YAML at all, and it comes over a page too. So
every fault is told with its line and how to mend it, and none of them costs more than a moment.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from appliance.errors import ConfigError

#: Where a value stands: keys, and numbers of items.
KeyPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_PLAIN = frozenset(_TAG + kind for kind in ("str", "int", "float", "bool", "null", "map", "seq"))
#: Why a value is none of a configuration, in words of who wrote it without meaning to.
_READ_AS = {"timestamp": "a date", "merge": "a merge of mappings", "value": "a default value", "binary": "binary data"}
#: Deeper than any configuration; each level is a call within a call where it is read.
_DEEPEST = 32
_SHOWN = 40
#: What a page could not show, or half a character, which it could not even send.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """SafeLoader of plain values whose keys are text, each once; YAML itself lets the second win in silence."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - as PyYAML calls it
        if node.tag not in _PLAIN:
            kind = node.tag.removeprefix(_TAG)
            mended = "put it in quotes where it is text" if isinstance(node, yaml.ScalarNode) else "leave its '!' out"
            raise _fault(node, f"{_shown(node)} is read as {_READ_AS.get(kind, kind)}, which no setting is; {mended}")
        if isinstance(node, yaml.ScalarNode) and _UNPRINTABLE.search(node.value):
            raise _fault(node, f"{_shown(node)} has a character that cannot be shown; leave it out")
        try:
            value = super().construct_object(node, deep)
        except (ValueError, KeyError) as error:  # !!int abc, !!bool maybe, more digits than Python takes
            said = f"{_shown(node)} is not what it is read as"
            raise _fault(node, f"{said}; put it in quotes where it is text") from error
        if isinstance(value, float) and not math.isfinite(value):
            raise _fault(node, f"{_shown(node)} is no number that can be reached; give one")
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _fault(key, f"{_shown(key)} is no name of a setting; write 'name: value'")
            # YAML reads a key 'on' as true and 1 as a number; here every key is a name.
            key.tag = f"{_TAG}str"
            if key.value in seen:
                raise _fault(key, f"key {key.value!r} stands twice; keep one")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_plain(text: str, *, repeats: bool = True) -> tuple[Any, dict[KeyPath, int]]:
    """The value of a text, and the line of each key and item in it.

    Args:
        text: As a person or ``to_yaml`` wrote it.
        repeats: Whether a part may be named (&) to repeat it (*). By that a few lines become more than the memory
            holds, so it is for files of the installer alone.

    Raises:
        ConfigError: What is wrong, in which line, and how to mend it.
    """
    try:
        _check(text, repeats=repeats)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        loader = _Loader("")
        value = None if node is None else loader.construct_document(node)
        lines = _lines(node)
    except yaml.MarkedYAMLError as error:
        mark, said = error.problem_mark or error.context_mark, error.problem or error.context or ""
        mended = said if isinstance(error, _Fault) else _mended(said)
        raise ConfigError(f"line {mark.line + 1 if mark else 1}: {mended}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"line {line}: a character that no text has; is this the right file?") from error
    except RecursionError as error:
        raise ConfigError("the text repeats itself within itself; write it out") from error
    return value, lines


def _check(text: str, *, repeats: bool) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None and not repeats:
            raise _fault(event, f"the text names a part to repeat it ({event.anchor}); write it out where it stands")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise _fault(event, f"the text nests more than {_DEEPEST} deep; settings do not")


def _mended(problem: str) -> str:
    if "'\\t'" in problem:
        return "a tab; indent with blanks"
    if "expected a single document" in problem or "another document" in problem:
        return "a second document begins ('---'); keep one"
    return f"is not YAML: {problem}; is a quote, a bracket or a colon missing above?"


class _Fault(yaml.MarkedYAMLError):
    """One of ours, which says by itself how to mend it."""


def _fault(where: Any, words: str) -> _Fault:
    return _Fault(problem=words, problem_mark=where.start_mark)


def _shown(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
    return repr(node.value if len(node.value) <= _SHOWN else f"{node.value[:_SHOWN]}...")


def _lines(node: yaml.Node | None, path: KeyPath = ()) -> dict[KeyPath, int]:
    found: dict[KeyPath, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            found[here] = key.start_mark.line + 1
            found.update(_lines(value, here))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            here = (*path, index)
            found[here] = item.start_mark.line + 1
            found.update(_lines(item, here))
    return found
