"""Real image files in a store, results that point into them, and a page that holds nothing but the viewer."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace

import numpy as np
from jinja2 import ChoiceLoader, DictLoader

from appliance.dicom.headers import read_header
from appliance.records import AnalysisResult, FindingResult, Outcome, Received, Region
from appliance.screen import display_child, viewer
from appliance.screen.app import screen_app
from appliance.simulate.dicomize import ct_series, xray
from appliance.simulate.phantom import Phantom
from appliance.simulate.study import Study
from appliance.web.access import CLINICAL, Guarded, caller_of

PAGE = """{% extends "shell.html" %}{% block title %}Images{% endblock %}{% block root %}data-live{% endblock %}
{% block main %}<h1>Images</h1>
<div class="split"><div>{% include "viewer.html" %}</div><aside class="card">…</aside></div>
{% endblock %}"""
PACKAGE = "head-ct-hyperdensity"
#: Of a page: pixels come when the test says so, by ``release()``; ``data-asked`` says that they were asked for.
HOLD = """
  const real = window.fetch;
  let go;
  const said = new Promise((told) => { go = told; });
  window.release = go;
  window.fetch = (...asked) => {
    if (!/px=/.test(asked[0])) return real(...asked);
    document.documentElement.dataset.asked = "";
    return said.then(() => real(...asked));
  };
"""


def part10(ds):
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def store_files(store, files, source="CT-1"):
    """Receive Part 10 files (bytes) as the box would; the id of the study of the last."""
    study_id = None
    for data in files:
        path = store.spool.write_blob("store", data)
        received = Received(
            header=read_header(store.spool.path(path)),
            path=path,
            size=len(data),
            data_sha256=hashlib.sha256(data).hexdigest(),
            association_id=1,
            source=source,
            stat=False,
            received_mono=store.db.clock.monotonic(),
        )
        study_id = store.studies.add_new(received, ()).study_id
    return study_id


def here(request, progress):
    """The function of the child that prepares images, in this process, at the niceness that it has."""
    return display_child.handle(request | {"nice": 0}, progress)


def child_in_process(module_name, request, limits, told, cancelled):
    """In place of ``run_limited``."""
    return here(request, told)


def close_series(store, study_id):
    """All images are there."""
    with store.db.write() as tx:
        tx.execute("UPDATE series SET open = 0, revision = 1 WHERE study_id = ?", (study_id,))


def add_datasets(store, datasets, source="CT-1"):
    """The same for data sets."""
    study_id = store_files(store, [part10(ds) for ds in datasets], source)
    close_series(store, study_id)
    return study_id


def head(slices=8, *, matrix=64, orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), spacing_mm=(1.0, 1.0), step_mm=5.0):
    """A CT whose slice n holds n at the left upper corner and a ramp: every slice is another."""
    y, x = np.mgrid[:matrix, :matrix]
    pixels = np.stack([(x * 4 + y - 100 + 0 * n).astype(np.int16) for n in range(slices)])
    for n in range(slices):
        pixels[n, : matrix // 8, : matrix // 8] = 10 * n
    return Phantom(
        kind="head_ct",
        pixels=pixels,
        spacing_mm=spacing_mm,
        positions_mm=tuple((0.0, 0.0, step_mm * n) for n in range(slices)),
        orientation=orientation,
        thickness_mm=step_mm,
        instance_numbers=tuple(range(1, slices + 1)),
    )


def ct(store, phantom=None, *, seed="images", leave_out=(), bits_stored=12):
    """A CT study in the store: id, data sets."""
    datasets = ct_series(phantom or head(), Study(seed=seed), bits_stored=bits_stored)
    kept = [ds for n, ds in enumerate(datasets) if n not in leave_out]
    return add_datasets(store, kept), kept


def film(store, pixels=None, *, seed="film", change=None, **options):
    """An X-ray study in the store: id, data set."""
    pixels = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint16) * 20 if pixels is None else pixels
    phantom = Phantom(kind="chest_xray", pixels=pixels, spacing_mm=(0.2, 0.2))
    ds = xray(phantom, Study(seed=seed), **options)
    if change is not None:
        change(ds)
    return add_datasets(store, [ds], source="DX-2"), ds


def flag(store, scenes, study_id, *, keys=(), boxes=(), masks=None, package=PACKAGE, intended_use="detection", **more):
    """An analysis that flagged something there; ``boxes`` are (uid, ((left, top), (right, bottom)))."""
    regions = tuple(
        Region(sop_instance_uid=uid, kind="box", points=points, finding="hyperdensity") for uid, points in boxes
    )
    result = AnalysisResult(
        outcome=Outcome.FINDING,
        findings=(
            FindingResult(
                id="hyperdensity",
                score=12.0,
                operating_point="standard",
                threshold=1.5,
                flagged=True,
                category=1,
                key_instances=tuple(keys),
                regions=regions,
            ),
        ),
        masks=masks,
    )
    with store.db.write() as tx:
        return scenes.add_analysis(tx, study_id, result, package=package, intended_use=intended_use, **more)


def triaging(packages):
    """The same packages, with the head package as one for triage."""
    return {**packages, PACKAGE: replace(packages[PACKAGE], intended_use="triage")}


def app_with_viewer(store, config, packages, clock, *, editable=False):
    """The application with ``/try/{study}``: a page of the shell around the viewer."""
    app = screen_app(store, config, packages, clock)
    context = app.state.context
    for environment in context.templates._environments.values():
        environment.loader = ChoiceLoader([DictLoader({"try.html": PAGE}), environment.loader])

    async def page(request):
        study_id = request.path_params["study_id"]
        study = (await context.pool.run(store.views.some, [study_id]))[study_id]
        values = await context.pool.run(
            lambda: viewer.viewer_context(
                context, caller_of(request), study, locale=context.locale(request), editable=editable
            )
        )
        return context.pages.page(request, "try.html", **values)

    app.router.routes.insert(0, Guarded("/try/{study_id:int}", page, roles=CLINICAL))
    return app
