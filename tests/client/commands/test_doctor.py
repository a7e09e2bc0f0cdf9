"""What `munkey-client doctor` finds, each with the way out, and that a sound site has nothing."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.client.importing.conventions import Conventions, write_conventions
from fedmunkey.client.importing.splits import SplitRule
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.identities.signed_card import CARDS_FOLDER
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.programs.reaching import clock_off
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.common.settings.settings import ImageShape, Settings
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.simulations.programs.free_ports import free_ports
from tests.cards import make_card
from tests.client.conftest import SITE
from tests.coordinator import make_identity
from tests.typed import Run

NOBODY = "127.0.0.1:1"


class _Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class _Patient(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Whoever only shakes hands has seen enough."""


@dataclass
class Site:
    """A joined site, a coordinator that answers over TLS, and the site's file."""

    folder: SiteFolder
    coordinator: CoordinatorFolder
    file: Path
    address: str

    def write(self, *lines: str, superlink: str = "", service: str = "", runtime: str = "") -> Path:
        text = [
            f'site-dir = "{self.folder.path}"',
            f'superlink = "{superlink or self.address}"',
            f'deletion-service = "{service or self.address}"',
            f'runtime = "{runtime or f"127.0.0.1:{free_ports(1)[0]}"}"',
        ]
        self.file.write_text("\n".join([*text, *lines]))
        return self.file


@pytest.fixture(scope="session")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorFolder:
    folder = CoordinatorFolder(tmp_path_factory.mktemp("coordinator") / "coordinator")
    folder.create("test federation", ["127.0.0.1"])
    settings = Settings().replace(num_classes=2)
    make_card(folder, ("first", "second"), settings, DescriptorEncoder(1).facts)
    return folder


@pytest.fixture
def site(folder: SiteFolder, coordinator: CoordinatorFolder, tmp_path: Path) -> Iterator[Site]:
    make_identity(coordinator.read_authority(), folder.identity, days=300)
    coordinator.read_cards().write(folder.path)
    key = SigningKey.generate()
    key.write(folder.signing_key)
    officer = TrustedKey("officer", Role.OFFICER, key.public)
    TrustedKeys.change(folder.trust, lambda keys: keys.add(officer))
    identity = coordinator.read_identity()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate_file, identity.key_file)
    with _Patient(("127.0.0.1", 0), _Quiet) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        yield Site(folder, coordinator, tmp_path / "site.toml", f"127.0.0.1:{server.server_port}")
        server.shutdown()
        serving.join()


def found(run: Run, path: Path) -> list[str]:
    ended = run("doctor", path, "--json")
    assert ended.code == (0 if ended.document["sound"] else 2)
    return [f"{finding['what']}: {finding['way_out']}" for finding in ended.document["findings"]]


def test_sound_site_has_no_findings(run: Run, site: Site) -> None:
    assert found(run, site.write()) == []
    assert "can be used" in run("up", site.write(), "--check").out


def _lose(name: str) -> Callable[[Site], Path]:
    def lose(site: Site) -> Path:
        (site.folder.path / name).unlink()
        return site.write()

    return lose


def _without_card(site: Site) -> Path:
    (site.folder.path / CARDS_FOLDER / "1.json").unlink()
    return site.write()


def _of_other_classes(site: Site) -> Path:
    conventions = Conventions(ImageShape((1, 8, 8)), ("second", "first"), "", SplitRule(), {})
    write_conventions(site.folder, conventions)
    return site.write()


def _of_another(site: Site) -> Path:
    other = site.folder.path / "identity"
    other.rename(site.folder.path / "before")
    make_identity(site.coordinator.read_authority(), other, name="hospital-9", days=300)
    return site.write()


def _of_an_officer(site: Site) -> Path:
    site.folder.identity.rename(site.folder.path / "before")
    make_identity(site.coordinator.read_authority(), site.folder.identity, MemberRole.OFFICER, SITE, days=300)
    return site.write()


def _ends_soon(site: Site) -> Path:
    site.folder.identity.rename(site.folder.path / "before")
    make_identity(site.coordinator.read_authority(), site.folder.identity, days=5)
    return site.write()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_lose("site-key.pem"), "the key that signs receipts"),
        (_lose("federation.secret"), "the federation's secret"),
        (_lose("trust.json"), "trust.json is missing"),
        (
            _of_another,
            "the key store of 'hospital-1', and the identity is that of 'hospital-9': name the site's",
        ),
        (_of_an_officer, "is the identity of officer hospital-1, of no site: ask the coordinator for an invitation"),
        (
            _without_card,
            "no federation card: nothing says what members must agree on: once the coordinator has",
        ),
        (_of_other_classes, "(version 1): classes is second, first, the card has first, second: enrol the records"),
        (_ends_soon, "expires in 4 days"),
        (lambda site: site.write(superlink=NOBODY), f"superlink = {NOBODY}: nobody answers (connection refused)"),
        (lambda site: site.write(service="nix.invalid:9440"), "nix.invalid:9440: the name is not known"),
        (lambda site: site.write(service=site.address.replace("127.0.0.1", "localhost")), "renew --host localhost"),
        (lambda site: site.write(runtime=site.address), "cannot be listened on: address already in use"),
        (lambda site: site.write("start-seconds = 0"), "start-seconds = 0"),
    ],
)
def test_what_is_wrong_is_found(run: Run, site: Site, spoil: Callable[[Site], Path], said: str) -> None:
    findings = found(run, spoil(site))

    assert len(findings) == 1, findings
    assert said in findings[0]


def test_clocks_that_are_apart_are_found(site: Site) -> None:
    identity = Identity.read(site.folder.identity)

    def off(seconds: float) -> list[str]:
        def clock() -> Any:
            return utc_now() + timedelta(seconds=seconds)

        return [finding.what for finding in clock_off("superlink", site.address, identity, clock)]

    assert off(0) == off(-3) == []
    (ahead,), (behind,) = off(3600.0), off(-7200.0)
    assert "s ahead of the coordinator's (superlink)" in ahead
    assert "s behind the coordinator's" in behind
    assert [*clock_off("superlink", NOBODY, identity)] == []
