"""Texts, templates, assets and the format of events."""

from __future__ import annotations

import hashlib
import re
from types import SimpleNamespace

import pytest
from jinja2 import UndefinedError

from appliance.errors import ConfigError
from appliance.web import sse
from appliance.web.assets import Assets
from appliance.web.i18n import Catalogues, language_of
from appliance.web.templates import Templates


@pytest.fixture
def assets(tmp_path):
    (tmp_path / "static" / "vendor").mkdir(parents=True)
    (tmp_path / "static" / "a.css").write_text("a {}", encoding="utf-8")
    (tmp_path / "static" / "vendor" / "f.woff2").write_bytes(b"font")
    return Assets((tmp_path / "static",))


@pytest.fixture
def templates(tmp_path, assets):
    def make(source):
        (tmp_path / "t.html").write_text(source, encoding="utf-8")
        return Templates((tmp_path,), assets, Catalogues())

    return make


def test_everything_that_a_template_shows_is_escaped(templates):
    assert templates("{{ name }}").render("en", "t.html", name="<b>&") == "&lt;b&gt;&amp;"


def test_a_name_that_a_template_does_not_know_is_an_error(templates):
    with pytest.raises(UndefinedError):
        templates("{{ nobody }}").render("en", "t.html")


@pytest.mark.req("R-SCREEN-05")
def test_texts_come_in_the_language_of_the_locale_also_with_values_and_plurals(templates):
    made = templates(
        '{{ _("Seen by %(name)s at %(time)s", name=n, time=t) }} {{ ngettext("%(num)s image", "%(num)s images", 2) }}'
    )
    values = {"n": "<Li>", "t": "14:22"}
    assert made.render("en", "t.html", **values) == "Seen by &lt;Li&gt; at 14:22 2 images"
    assert made.render("zh_Hans_CN", "t.html", **values) == "&lt;Li&gt; 已于 14:22 确认 2 幅"


def test_a_packages_text_is_shown_in_the_readers_language_or_else_in_english(templates):
    made = templates("{{ both|text }} {{ one|text }}")
    values = {"both": {"en": "bleed", "zh_Hans": "出血"}, "one": {"en": "only"}}
    assert made.render("zh_Hans_CN", "t.html", **values) == "出血 only"
    assert language_of("en") == "en"


def test_a_missing_or_damaged_catalogue_stops_the_start(tmp_path):
    with pytest.raises(ConfigError, match=r"scanside\.po"):
        Catalogues(tmp_path)
    for locale in ("en", "zh_Hans_CN"):
        (tmp_path / locale / "LC_MESSAGES").mkdir(parents=True)
        (tmp_path / locale / "LC_MESSAGES" / "scanside.po").write_text("msgid broken", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"scanside\.po"):
        Catalogues(tmp_path)


def test_the_address_of_an_asset_changes_with_any_of_them(tmp_path, assets):
    before = assets.url("a.css")
    (tmp_path / "static" / "vendor" / "f.woff2").write_bytes(b"other font")
    assert Assets((tmp_path / "static",)).url("a.css") != before


def test_an_asset_that_does_not_exist_or_has_two_owners_is_a_mistake_of_ours(tmp_path, assets):
    with pytest.raises(KeyError):
        assets.url("b.css")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.css").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.css"):
        Assets((tmp_path / "static", tmp_path / "other"))


def test_what_is_taken_from_others_is_what_its_list_says_and_has_its_licence(repo):
    folder = repo / "appliance" / "web" / "static" / "vendor"
    listed = dict(
        reversed(line.split()) for line in (folder / "SHA256SUMS.txt").read_text(encoding="ascii").splitlines()
    )
    present = {path.name for path in folder.iterdir()} - {"SHA256SUMS.txt"}
    assert set(listed) == present
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    licences = {"htmx": "Zero-Clause BSD", "inter": "SIL OPEN FONT LICENSE", "uplot": "The MIT License"}
    assert {re.split(r"[.-]", name)[0] for name in present} == set(licences)
    for name, licence in licences.items():
        assert licence in (folder / f"{name}-LICENSE.txt").read_text(encoding="utf-8"), name


def test_pages_name_no_other_server(repo):
    for folder in ("screen", "web"):
        for suffix in ("html", "css", "js"):
            for path in (repo / "appliance" / folder).rglob(f"*.{suffix}"):
                if "vendor" in path.parts:
                    continue  # as their makers wrote them; the hashes of these are checked above
                text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
                assert "://" not in text, path


@pytest.mark.parametrize(
    ("header", "query", "expected"),
    [
        (None, None, 50),
        (None, "7", 7),
        ("9", "7", 9),
        ("0", None, 0),
        ("51", None, 50),
        ("-3", "8", 8),
        ("1e3", None, 50),
        ("9" * 40, None, 50),
        ("٣", None, 50),
    ],
)
@pytest.mark.req("R-SCREEN-04")
def test_a_client_goes_on_where_it_was(header, query, expected):
    request = SimpleNamespace(
        headers={"last-event-id": header} if header else {}, query_params={"after": query} if query else {}
    )
    assert sse.resume_after(request, 50) == expected
