"""A site whose SuperNode, which is on a network, has an account of its own: it reads no key, and rounds go on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

import fedmunkey
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.identities import Identity
from fedmunkey.common.identities.card_draft import CardDraft
from fedmunkey.common.model.federation_card import agreed_settings
from fedmunkey.common.model.model_choice import choose_facts
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.card_making import enter_version
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.members.register import MemberRegister
from fedmunkey.simulations.deploy_local.terminal import Background
from fedmunkey.simulations.programs.free_ports import free_ports
from tests.coordinator import make_identity
from tests.solved_sites import SECRET, digits, make_hospital, solved_settings

pytestmark = [
    pytest.mark.processes,
    pytest.mark.flower,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start programs under two accounts"),
]

SECONDS = 240.0
SITE, SUPERNODE = 61_001, 61_002
NAME = "hospital-1"


def environment() -> dict[str, str]:
    """Return where accounts that may not enter this one's home find this installation."""
    folders = [Path(fedmunkey.__path__[0]).parent, *(Path(each) for each in sys.path if "site-packages" in each)]
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "OMP_NUM_THREADS", "LANG")}
    return {**kept, "PYTHONPATH": os.pathsep.join(map(str, folders)), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def python() -> str:
    """An interpreter of this version that other accounts may start."""
    for found in (sys.executable, "/usr/bin/python3.11", "/usr/local/bin/python3.11"):
        with suppress(OSError):
            if run(found, SUPERNODE, "import flwr, numpy, fedmunkey.client.site").returncode == 0:
                return found
    pytest.skip("other accounts may not start this Python")


def run(python: str, account: int, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [python, "-P", "-c", code],
        user=account,
        group=account,
        extra_groups=[],
        cwd="/",
        env={**environment(), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="munkey-accounts-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def give(path: Path, account: int) -> None:
    for each in (path, *path.rglob("*")):
        os.chown(each, account, account)


def program(python: str, *words: str) -> list[str]:
    return [python, *own_program("fedmunkey.client.cli", *words)[1:]]


def as_account(account: int, python: str, *words: str) -> list[str]:
    drop = ["setpriv", f"--reuid={account}", f"--regid={account}", "--clear-groups"]
    return [*drop, *program(python, *words)]


def test_supernode_of_another_account_reads_no_key_and_a_round_is_run(folder: Path, python: str) -> None:
    superlink, control, deletions, joining, runtime = [f"127.0.0.1:{port}" for port in free_ports(5)]
    settings = solved_settings(folder, deletions, min_sites=1, num_rounds=1)
    site = make_hospital(folder, 1, settings, [digits(range(60))]).folder
    coordinator = CoordinatorFolder(folder / "coordinator")
    authority = coordinator.create("test federation", ["127.0.0.1"])
    identity = Identity.read(make_identity(authority, site.identity, name=NAME))
    TrustedKeys().write(site.trust)
    SECRET.write(site.secret)
    with Ledger(coordinator.ledger) as ledger:
        MemberRegister(ledger.engine).adopt(identity.certificate)
        ledger.register(NAME)
    classes = tuple(f"digit {number}" for number in range(settings.num_classes))
    draft = CardDraft(classes, choose_facts(settings), agreed_settings(settings))
    enter_version(coordinator, draft, "", coordinator.ledger, utc_now())
    own = folder / "supernode"
    shutil.copytree(site.identity, own / "identity")
    for account, path in ((SITE, site.path), (SUPERNODE, own)):
        give(path, account)
        path.chmod(0o700)
    (folder / "site.toml").write_text(
        f'site-dir = "{site.path}"\nsupernode-dir = "{own}"\nsuperlink = "{superlink}"\nruntime = "{runtime}"\n'
        f'deletion-service = "{deletions}"\ninsecure-sums = true\n'
    )
    chosen = {key: value for key, value in settings.to_config().items() if key in RUN}
    (folder / "coordinator.toml").write_text(
        f'coordinator-dir = "coordinator"\nsuperlink = "{superlink}"\nsuperlink-control = "{control}"\n'
        f'deletion-service = "{deletions}"\njoining = "{joining}"\n[run]\n'
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in chosen.items())
    )

    files = [each for each in site.path.iterdir() if each.name.startswith("keystore.")]
    assert {each.suffix for each in files} >= {".sqlite", ".keys", ".master", ".journal"}
    for path in (*files, site.secret):
        assert "Permission denied" in run(python, SUPERNODE, f"open({str(path)!r}, 'rb')").stderr
        assert run(python, SITE, f"open({str(path)!r}, 'rb')").returncode == 0
    with ExitStack() as stack:

        def start(name: str, command: list[str]) -> Background:
            found = Background(name, command, folder, environment())
            stack.callback(found.stop)
            return found

        start("coordinator", own_program("fedmunkey.server.cli", "up", "coordinator.toml")).expect("is up", SECONDS)
        up = ["up", "site.toml", "--only"]
        start("site", as_account(SITE, python, *up, "site")).expect("is up", SECONDS)
        nodes = start("supernode", as_account(SUPERNODE, python, *up, "supernode"))
        nodes.expect("SuperNode ID", SECONDS)
        ran = subprocess.run(  # noqa: S603
            own_program("fedmunkey.server.cli", "run", "coordinator.toml", "--json"),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)[-1]["sites"] == [NAME]
        assert SiteFolder(site.path).shared_weights.stat().st_uid == SITE
        assert accounts_of("supernode_program", folder) == {SUPERNODE}
        assert accounts_of("apps_program", folder) == accounts_of("agent", folder) == {SITE}

    # Under the site's account it would have read them.
    refused = subprocess.run(  # noqa: S603
        program(python, "up", "site.toml", "--only", "supernode", "--check"),
        user=0,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "which Flower's SuperNode should not" in refused.stderr


RUN = (
    *("num-rounds", "min-sites", "guarantee", "image-shape", "num-classes", "encoder", "random-features"),
    *("exemplar-size", "device", "deletion-patience"),
)


def accounts_of(program: str, folder: Path) -> set[int]:
    """Return who runs the processes whose command line has a program and a folder in it."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_text(errors="replace")
            if program in words and str(folder) in words:
                found.add(process.stat().st_uid)
    return found
