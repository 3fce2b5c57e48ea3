"""A server's TUF repository in a folder, with keys of its own, and its HTTP on loopback.

    kit = TufKit(tmp_path / "tuf")                      # one release key, one online key, trust.json as they say
    kit.add("models/ich-ct/2.0.0.zip", b"...", package="ich-ct", version="2.0.0", digest="0123456789abcdef")
    with kit.serve() as url:                            # http://127.0.0.1:PORT
        updater = kit.updater(tmp_path / "box", url)    # python-tuf's own client

``TufKit(..., release=[key, ...], online=key, threshold=2)`` takes keys that a test has already (engines.signing).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import urllib.error
import urllib.request
from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata
from tuf.ngclient import FetcherInterface, Updater

from appliance.clock import SystemClock
from appliance.fleet.device.identity import Trust
from appliance.fleet.server.door import device_app
from appliance.fleet.server.downloads import Downloads
from appliance.fleet.server.repository import Repository
from appliance.fleet.server.repository_files import METADATA, TARGETS
from appliance.fleet.server.repository_rules import TRUST, model_target
from appliance.web.pool import Pool
from appliance.web.server import WebServer
from engines.signing import generate

DAY = dt.timedelta(days=1)


def trust_of(online, release, threshold=1):
    """``trust.json`` for private keys."""
    return Trust(
        online=tuple(key.public.pem() for key in online),
        release=tuple(key.public.pem() for key in release),
        release_threshold=threshold,
    )


class FolderFetcher(FetcherInterface):
    """Reads a repository's folder as its server would, without one. ``told`` gets each address before it is read."""

    def __init__(self, folder, told=lambda url: None):
        self.folder, self.told = Path(folder), told

    def _fetch(self, url):
        self.told(url)
        path = self.folder / url.split("/v1/tuf/", 1)[1]
        if not path.is_file():
            raise DownloadHTTPError("not there", 404)
        return iter([path.read_bytes()])


class HttpsFetcher(FetcherInterface):
    """Over HTTPS whose certificates ``context`` checks."""

    def __init__(self, context):
        self.context = context

    def _fetch(self, url):
        try:
            with urllib.request.urlopen(url, context=self.context, timeout=30) as got:  # noqa: S310 - the test's own
                yield got.read()
        except urllib.error.HTTPError as error:
            raise DownloadHTTPError(str(error), error.code) from error


class TufKit:
    """``folder`` is what the server calls ``tuf``; ``now`` is when everything is signed (the present by default)."""

    def __init__(self, folder, *, release=None, online=None, threshold=1, now=None):
        self.folder = Path(folder)
        self.now = now or dt.datetime.now(dt.timezone.utc)
        self.release = list(release or [generate("release")])
        self.online = online or generate("online")
        self.trust = trust_of([self.online], self.release, threshold)
        self.repository = Repository(self.folder)
        self.repository.create(self.trust, self.release, self.online, self.now)

    def add(self, path, data, **custom):
        """List a target of these bytes (or of a file); keywords stand in its ``custom.scanside``."""
        source = data
        if not isinstance(data, Path):
            source = self.folder / "incoming"
            source.write_bytes(data)
        target = self.repository.put(source, path, custom)
        self.publish(add=[target])
        return path

    def add_model(self, archive, package, version, digest, min_agent="", **custom):
        """List an archive as a model, without looking into it."""
        told = {"package": package, "version": version, "digest": digest, "min_agent": min_agent, **custom}
        return self.add(model_target(package, version), archive, **told)

    def withdraw(self, path):
        self.publish(withdraw=[path])

    def rotate(self, *, release=None, online=None, threshold=None, signers=None):
        """Other keys: a new root by the old and the new ones, a new trust.json. ``online``: several."""
        before, release = self.release, list(release or self.release)
        online = list(online or [self.online])
        self.trust = trust_of(online, release, threshold or self.trust.release_threshold)
        self.release = release
        both = {key.raw: key for key in (*before, *release)}
        self.publish(trust=self.trust, signers=signers or list(both.values()))

    def publish(self, *, signers=None, online=None, now=None, **changes):
        return self.repository.publish(signers or self.release, online or self.online, now or self.now, **changes)

    def refresh(self, now=None, *, force=True):
        return self.repository.refresh(self.online, now or self.now, force=force)

    # What lies there -------------------------------------------------------------------------------------------------

    def root_bytes(self):
        return (self.folder / METADATA / "root.json").read_bytes()

    def metadata(self, name):
        """As python-tuf's Metadata: "timestamp.json", "1.root.json", ..."""
        return Metadata.from_bytes((self.folder / METADATA / name).read_bytes())

    def blob(self, path=TRUST):
        """Where a listed target lies."""
        return self.folder / TARGETS / self.repository.targets()[path].get_prefixed_paths()[0]

    @contextlib.contextmanager
    def serve(self, *, tls=None, limits=None):
        """The routes of ``Downloads`` on a free port of loopback; yields the address (``tls``: an SSLContext)."""
        pool = Pool(2, "tuf-kit")
        web = WebServer(device_app(Downloads(self.folder, pool, SystemClock(), limits).routes()), port=0, tls=tls)
        port = web.start()
        try:
            yield f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
        finally:
            web.stop()
            pool.close()

    def updater(self, folder, url="", *, bootstrap=True, fetcher=None):
        """python-tuf's client; ``bootstrap=False``: go on from what lies in ``folder``. Without ``url``: no server."""
        fetcher = fetcher if fetcher is not None or url else FolderFetcher(self.folder)
        folder = Path(folder)
        (folder / "targets").mkdir(parents=True, exist_ok=True)
        return Updater(
            str(folder),
            f"{url}/v1/tuf/metadata/",
            str(folder / "targets"),
            f"{url}/v1/tuf/targets/",
            fetcher=fetcher,
            bootstrap=self.root_bytes() if bootstrap else None,
        )
