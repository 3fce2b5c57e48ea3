"""Every code has words, every text both languages, and no text says what the box must not say."""

from __future__ import annotations

import ast
import re
import string
import subprocess
import sys

import pytest
from babel.messages.pofile import read_po

from appliance.records import Reason
from appliance.screen import words
from appliance.screen.audit_words import KINDS, LOOKED_AT
from appliance.screen.health import MENDING
from appliance.store.facts import Kind
from appliance.web.i18n import LOCALES

BANNED = re.compile(
    r"\b(normal|normally|negative|healthy|absent|clear|benign)\b|正常|阴性|健康|无异常|未见异常", re.IGNORECASE
)


@pytest.fixture(scope="module")
def catalogue(repo):
    def read(locale):
        with (repo / "appliance/web/locales" / locale / "LC_MESSAGES/scanside.po").open("rb") as file:
            return read_po(file, locale=locale)

    return read


@pytest.fixture(scope="module")
def trees(repo):
    """Every file of our code, read."""
    paths = (*repo.glob("appliance/**/*.py"), *repo.glob("engines/**/*.py"))
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def _texts(message):
    return message.string if message.pluralizable else (message.string,)


@pytest.mark.req("R-SCREEN-05")
@pytest.mark.parametrize("locale", LOCALES)
def test_every_text_is_translated_and_none_is_fuzzy(catalogue, locale):
    messages = [message for message in catalogue(locale) if message.id]
    assert len(messages) > 80
    for message in messages:
        assert all(_texts(message)), message.id
        assert not message.fuzzy, message.id
        assert not list(message.check()), message.id


def test_chinese_is_marked_as_awaiting_review_where_it_is_kept_and_where_the_product_is_described(catalogue, repo):
    assert "Awaiting review by a radiology department." in catalogue("zh_Hans_CN").header_comment
    assert "await review by a radiology department" in (repo / "README.md").read_text("utf-8")


def _places(text):
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


@pytest.mark.req("R-SCREEN-05")
def test_every_placeholder_survives_translation(catalogue):
    for message in catalogue("zh_Hans_CN"):
        if message.id and not message.pluralizable:
            assert _places(message.string) == _places(message.id), message.id


@pytest.mark.req("R-SCREEN-05")
def test_every_sentence_is_a_literal_text_with_exactly_its_values(repo, trees):
    """A text that is put together when it is needed would never be in a catalogue."""
    place_of_text = {"Detail": 0, "Message": 0, "NotAnalysable": 1, "ContentError": 1}
    wrong, sentences = [], 0
    for path, tree in trees.items():
        tables = {id(value) for node in ast.walk(tree) if isinstance(node, ast.Dict) for value in node.values}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            place = place_of_text.get(node.func.id)
            if place is None or len(node.args) <= place:
                continue
            text, *more = node.args[place:]
            where = f"{path.relative_to(repo)}:{node.lineno}"
            if isinstance(text, (ast.JoinedStr, ast.BinOp)):
                wrong.append(where)
            # Texts in a table get their values later; values may also be held by a name.
            if not isinstance(text, ast.Constant) or id(node) in tables or (more and not isinstance(more[0], ast.Dict)):
                continue
            sentences += 1
            given = [key.value for key in more[0].keys] if more else [keyword.arg for keyword in node.keywords]
            if _places(text.value) != sorted(given):
                wrong.append(where)
    assert not wrong
    assert sentences > 60


@pytest.mark.req("R-SCREEN-05")
def test_the_catalogues_hold_exactly_the_texts_of_code_and_templates(repo):
    done = subprocess.run(
        [sys.executable, str(repo / "tools/messages.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.req("R-SCREEN-05")
def test_chinese_texts_are_chinese(catalogue):
    for message in catalogue("zh_Hans_CN"):
        own = re.sub(r"%?[({]\w*[)}]\w?", "", "".join(message.id))  # what is no placeholder
        if re.search("[a-z]{3}", own):  # PACS and kB are what they are
            assert re.search("[\u4e00-\u9fff]", "".join(_texts(message))), message.id


@pytest.mark.req("R-SCREEN-07")
@pytest.mark.parametrize("locale", LOCALES)
def test_no_text_says_normal_negative_or_absent(catalogue, locale):
    for message in catalogue(locale):
        for text in (*_texts(message), *(message.id if message.pluralizable else (message.id,))):
            assert not BANNED.search(text), text


def test_every_reason_says_what_is_wrong_and_what_to_do():
    assert set(words.REASONS) == set(Reason)
    assert words.reason("unheard_of") == words.REASONS[Reason.FAILED]


@pytest.mark.req("R-SCREEN-05")
def test_no_template_holds_text_outside_gettext(repo):
    outside = []
    for path in (repo / "appliance/screen/templates").glob("*.html"):
        source = path.read_text(encoding="utf-8")
        # Attributes of the page's root, which the shell puts into its tag; what is typed; the names of keys.
        typed = r"\{% block root %\}.*?\{% endblock %\}|<pre>.*?</pre>|<kbd>\w+</kbd>"
        source = re.sub(typed, "", source, flags=re.DOTALL)
        source = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", source, flags=re.DOTALL)
        source = re.sub(r"<[^<>]*>|&\w+;", "", source)
        outside += [(path.name, found) for found in re.findall(r"[A-Za-z\u4e00-\u9fff]{2,}", source)]
    assert not outside


@pytest.mark.req("R-SCREEN-07")
def test_nothing_is_green(repo):
    for path in [*repo.glob("appliance/*/static/*.css"), *repo.glob("appliance/*/static/*.svg")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\b(green|lime|olive|teal)\b", text.split("*/", 1)[-1]), path
        for colour in re.findall(r"#([0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b", text):
            full = colour if len(colour) == 6 else "".join(c * 2 for c in colour)
            red, green, blue = (int(full[i : i + 2], 16) for i in (0, 2, 4))
            assert green <= max(red, blue) + 16, f"#{colour} in {path.name}"


#: Each thing has one word: what must not stand, and what stands instead.
ONE_WORD = {
    "扫描仪|扫描设备": "检查设备, CT 机",
    "软件包|程序包": "模型包",
    "影像": "图像",
    "警报|告警|报警": "警示",
    "技术员": "技师",
    "放射科医师|放射医师|医生": "诊断医师",
    "研究(?!版|用)": "检查",
    "售后|服务人员|维护团队": "维护人员",
    "账户": "账号",
    "设备管理员": "本机管理员",
}


@pytest.mark.req("R-SCREEN-05")
def test_chinese_texts_use_the_words_of_the_field_and_one_for_each_thing(catalogue):
    for message in catalogue("zh_Hans_CN"):
        for wrong, right in ONE_WORD.items():
            assert not re.search(wrong, "".join(_texts(message))), f"{message.id}: {right}"


# Codes --------------------------------------------------------------------------------------------------------------

_CODE = re.compile(r"[A-Z]+(_[A-Z]+)+")


def _codes_of_issues(repo, trees):
    """Every code with which an issue is raised anywhere, read from the calls: literals, constants, and where a call
    gets a variable, all constants of its file that look like codes."""
    trees = {path: tree for path, tree in trees.items() if path.is_relative_to(repo / "appliance")}

    def constants(tree):
        return {
            target.id: value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for value in (node.value.elts if isinstance(node.value, ast.Tuple) else [node.value])
            for target in node.targets
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str)
        }

    known = {path: constants(tree) for path, tree in trees.items()}
    codes = set()
    for path, tree in trees.items():
        imported = {
            alias.asname or alias.name: known.get(repo / (node.module or "").replace(".", "/"), {}).get(alias.name)
            or known.get(repo / f"{(node.module or '').replace('.', '/')}.py", {}).get(alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        names = {name: text for name, text in (imported | known[path]).items() if text and _CODE.fullmatch(text)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called not in {"raise_", "raise_issue"}:
                continue
            code = node.args[called == "raise_issue"]
            parts = [part for part in ast.walk(code) if isinstance(part, (ast.Name, ast.Constant))]
            said = {part.value if isinstance(part, ast.Constant) else names.get(part.id) for part in parts} - {None}
            codes |= said or {text for name, text in known[path].items() if text and _CODE.fullmatch(text)}
    return codes


@pytest.mark.req("R-ADMIN-02")
def test_every_issue_of_the_code_has_its_sentence_and_says_what_to_do(repo, trees):
    codes = _codes_of_issues(repo, trees)
    assert codes >= {"DISK_RESERVE", "WORKLIST_MISMATCH", "CERTIFICATE_ENDS", "KSERVE_DEGRADED", "SCREEN_SOURCE_GONE"}
    assert codes == set(words.ISSUES)
    assert codes == set(MENDING)


@pytest.mark.req("R-ADMIN-03")
def test_every_kind_of_fact_and_everything_that_is_looked_at_has_words(repo):
    assert set(KINDS) == set(Kind)
    seen = set()
    for path in (*repo.glob("appliance/screen/*.py"), *repo.glob("appliance/cli/*.py")):
        source = path.read_text(encoding="utf-8")
        seen |= set(re.findall(r"\.accessed(?:\(|,)\s*\"([^\"]+)\"", source))
        assert len(re.findall(r"\.accessed\b", source)) == len(re.findall(r"\.accessed(?:\(|,)\s*\"", source)), path
    assert seen >= {"study", "audit", "images"}
    assert seen <= set(LOOKED_AT)
