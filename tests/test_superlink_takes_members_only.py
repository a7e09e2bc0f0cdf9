"""A real SuperLink and real SuperNodes: who may take part, and what may be asked where."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from fedmunkey.common.identities import Identity
from fedmunkey.common.programs.flower import flower_environment
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.members.register import MemberRegister
from fedmunkey.simulations.deploy_local.terminal import Background
from fedmunkey.simulations.programs.free_ports import free_ports
from tests.coordinator import make_identity
from tests.patience import PATIENCE

pytestmark = pytest.mark.processes

Start = Callable[[str, str, str], Background]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a module on a file of settings; what was started is stopped afterwards."""
    with ExitStack() as stack:

        def begin(name: str, module: str, settings: str) -> Background:
            (tmp_path / f"{name}.toml").write_text(settings)
            environment = {**os.environ, **flower_environment(tmp_path / f"{name}-flower")}
            background = Background(name, own_program(module, f"{name}.toml"), tmp_path, environment)
            stack.callback(background.stop)
            return background

        yield begin


def test_superlink_takes_members_only(tmp_path: Path, start: Start) -> None:
    sites, control, first, second = [f"127.0.0.1:{port}" for port in free_ports(4)]
    folder = CoordinatorFolder(tmp_path / "coordinator")
    authority = folder.create("test federation", ["127.0.0.1"])
    member = Identity.read(make_identity(authority, tmp_path / "member" / "identity", name="hospital-1"))
    make_identity(authority, tmp_path / "stranger" / "identity", name="hospital-2")
    with Ledger(folder.ledger) as ledger:
        register = MemberRegister(ledger.engine)
        register.adopt(member.certificate)
        # As its unit has it: it reads neither the authority's key nor the log's.
        folder.authority.rename(tmp_path / "elsewhere")
        folder.log_key.rename(tmp_path / "elsewhere.pem")
        superlink = start(
            "superlink",
            "fedmunkey.server.superlink.superlink_program",
            f'coordinator-dir = "coordinator"\nsuperlink = "{sites}"\nsuperlink-control = "{control}"\n',
        )
        superlink.expect("SuperLink for sites at", PATIENCE)
        nodes = {
            name: start(
                name,
                "fedmunkey.client.supernode.supernode_program",
                f'site-dir = "{name}"\nsuperlink = "{sites}"\nruntime = "{runtime}"\ndeletion-service = "{sites}"\n',
            )
            for name, runtime in (("member", first), ("stranger", second))
        }

        nodes["member"].expect("SuperNode ID: ", PATIENCE)
        nodes["stranger"].expect("Failed to activate SuperNode", PATIENCE)
        trusted = ssl.create_default_context(cafile=member.ca_file)
        assert httpx.get(f"https://{sites}/health", verify=trusted, timeout=PATIENCE).status_code == 200
        for method in ("control/start-run", "control/list-runs", "runtime/acquire-task"):
            answer = httpx.post(f"https://{sites}/v1/{method}", verify=trusted, timeout=PATIENCE)
            assert answer.status_code == 404
        assert (
            httpx.post(f"https://{control}/v1/control/list-runs", verify=trusted, timeout=PATIENCE).status_code != 404
        )
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{sites}/health", timeout=PATIENCE)

        register.revoke("hospital-1", "its server was stolen")
        superlink.expect("SuperNode of hospital-1 is unregistered", PATIENCE)
        nodes["member"].expect("SuperNode terminated", PATIENCE)
