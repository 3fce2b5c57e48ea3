"""Facts that stand in the flow of the code, read there or tried out: statuses, attributes, answers."""

from __future__ import annotations

import ast
import inspect
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from appliance.clock import SystemClock
from appliance.dicom import commands
from appliance.dicom.classes import MODALITY_PERFORMED_PROCEDURE_STEP
from appliance.dicom.commands import Failure, Request
from appliance.intake.performed import PerformedSteps
from appliance.records import StepState
from appliance.store import Store

#: Calls that answer with a status, and the words that go with it.
_REFUSING = frozenset({"RejectedInstance", "Failure", "_refused"})
#: The helper of the header's readers, which knows one status alone.
_CANNOT_UNDERSTAND = "_refuse"


def answers(module: ModuleType, within: str = "") -> list[tuple[int, str]]:
    """Every status with which a module refuses, with the words beside it; what a name stands for at run time is "...".

    Args:
        module: Whose source is read.
        within: Of one function or method alone.
    """
    root: ast.AST = ast.parse(inspect.getsource(module))
    if within:
        functions = (node for node in ast.walk(root) if isinstance(node, ast.FunctionDef))
        root = next(node for node in functions if node.name == within)
    found: dict[tuple[int, str], None] = {}
    for function in [node for node in ast.walk(root) if isinstance(node, ast.FunctionDef)]:
        assigned = [
            (node.lineno, node.targets[0].id, _text(node.value, {}))
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        ]
        for call in [node for node in ast.walk(function) if isinstance(node, ast.Call)]:
            # Of several texts under one name the last one before the call.
            texts = {name: text for line, name, text in sorted(assigned) if line <= call.lineno}
            told = _answer(module, call, texts)
            if told is not None and told[1]:
                found[told] = None
    return sorted(found)


def rejections(module: ModuleType) -> list[tuple[tuple[int, int, int], str]]:
    """Every A-ASSOCIATE-RJ of a module: result, source and reason, with the words beside them, in their order."""
    found = []
    for call in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(call, ast.Call) and _called(call) == "_reject" and isinstance(call.args[0], ast.Name):
            codes = getattr(module, call.args[0].id, None)
            if codes is not None:
                found.append((codes, _text(call.args[1], {})))
    return found


def returned(module: ModuleType, within: str) -> list[str]:
    """The constants of a module that a function or method returns, by their names."""
    functions = (node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.FunctionDef))
    function = next(node for node in functions if node.name == within)
    values = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    return list(dict.fromkeys(value.id for value in values if isinstance(value, ast.Name)))


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _answer(module: ModuleType, call: ast.Call, texts: dict[str, str]) -> tuple[int, str] | None:
    name = _called(call)
    if name == _CANNOT_UNDERSTAND:
        return commands.CANNOT_UNDERSTAND, _text(call.args[0], texts)
    if name not in _REFUSING:
        return None
    for n, argument in enumerate(call.args[:-1]):
        status = _status(module, argument)
        if status:
            return status, _text(call.args[n + 1], texts)
    return None


def _status(module: ModuleType, node: ast.expr) -> int | None:
    if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "commands":
        return int(getattr(commands, node.attr))
    if isinstance(node, ast.Name):
        value = getattr(module, node.id, None)
        return value if isinstance(value, int) else None
    return None


def _text(node: ast.expr, texts: dict[str, str]) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name):
        return texts.get(node.id, "")
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, {}) if isinstance(part, ast.Constant) else "..." for part in node.values)
    return ""


# -- attributes that a function reads --------------------------------------------------------------------------------


class _Spy(Dataset):
    """A data set that notes what it is asked for."""

    def __init__(self, place: str, asked: dict[str, None]) -> None:
        super().__init__()
        self.__dict__["place"], self.__dict__["asked"] = place, asked

    def get(self, key: Any, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)

    def __contains__(self, name: Any) -> bool:
        self._note(name)
        return super().__contains__(name)

    def _note(self, key: Any) -> None:
        if isinstance(key, str) and tag_for_keyword(key) is not None:
            self.__dict__["asked"][self.__dict__["place"] + key] = None


def attributes_read(read: Callable[[Dataset], object], **sample: Any) -> list[str]:
    """The attributes that ``read`` looks at, as "Sequence > Attribute" by their names, in the order of asking.

    Args:
        read: Is given a data set.
        sample: What the data set holds; a list of dictionaries is a sequence.
    """
    asked: dict[str, None] = {}
    ds = _spied(sample, "", asked)
    asked.clear()
    read(ds)
    return [" > ".join(dictionary_description(keyword) for keyword in one.split(">")) for one in asked]


def _spied(sample: dict[str, Any], place: str, asked: dict[str, None]) -> _Spy:
    ds = _Spy(place, asked)
    for keyword, value in sample.items():
        is_sequence = isinstance(value, list)
        items = Sequence([_spied(item, f"{place}{keyword}>", asked) for item in value]) if is_sequence else value
        setattr(ds, keyword, items)
    return ds


def names(ds: Dataset, place: str = "") -> Iterator[tuple[str, str]]:
    """Every attribute of a data set as "Sequence > Attribute", with its value as text; empty where it has none."""
    for element in ds:
        name = place + element.name
        if element.VR == "SQ":
            for item in element.value:
                yield from names(item, f"{name} > ")
        else:
            yield name, str(element.value or "")


# -- performed procedure steps, tried out ----------------------------------------------------------------------------


def performed_steps() -> list[list[str]]:
    """What each request does to a step in each state: a row a request, a column a state."""
    states: list[StepState | None] = [None, *StepState]
    requests = [
        (f"{name}, {said or 'no status'}", command, said)
        for name, command in (("N-CREATE", commands.N_CREATE_RQ), ("N-SET", commands.N_SET_RQ))
        for said in ("", *map(str, StepState), "SUSPENDED")
    ]
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder), SystemClock(), reserve_bytes=0)
        try:
            rows = [
                [name, *(_tried(store, f"2.25.{n}{m}", state, command, said) for m, state in enumerate(states))]
                for n, (name, command, said) in enumerate(requests)
            ]
        finally:
            store.close()
    return [["request", *("no such step" if state is None else str(state) for state in states)], *rows]


def _tried(store: Store, uid: str, state: StepState | None, command: int, said: str) -> str:
    if state is not None:
        store.steps.begin(uid, "scanner")
        if state is not StepState.IN_PROGRESS:
            store.steps.set(uid, "scanner", state, None)
    ds = Dataset()
    if said:
        ds.PerformedProcedureStepStatus = said
    peer: Any = SimpleNamespace(source=SimpleNamespace(name="scanner"))
    acts = PerformedSteps(store.steps, wake=lambda: None).services()[MODALITY_PERFORMED_PROCEDURE_STEP]
    request = Request(
        command_field=command,
        message_id=1,
        sop_class_uid=MODALITY_PERFORMED_PROCEDURE_STEP,
        sop_instance_uid=uid,
        has_data_set=True,
        high_priority=False,
    )
    status = acts[command](peer, request, ds)
    if status == commands.SUCCESS:
        return f"0x{status:04X}, then {store.steps.state(uid)}"
    error = f", Error ID 0x{status.error_id:04X}" if isinstance(status, Failure) and status.error_id else ""
    return f"0x{status:04X}{error}"
