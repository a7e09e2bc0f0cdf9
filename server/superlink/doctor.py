"""`munkey-server doctor`: what is wrong at the coordinator, before it matters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import FedmunkeyError, InvalidInput, InvalidSetting
from fedmunkey.common.identities import Identity
from fedmunkey.common.programs.doctor import Finding, examine, expiring, missing, show_findings, taken_ports
from fedmunkey.common.programs.options import JsonOption
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKeys
from fedmunkey.common.settings.addresses import loopback_address, split_address
from fedmunkey.common.settings.settings import ONNX
from fedmunkey.server.database.connection import SQLITE, ledger_url, open_engine, shown
from fedmunkey.server.members.authority import hosts_of
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.superlink.coordinator_file import DELETION_SERVICE, NOTICES, SUPERLINK, CoordinatorFile
from fedmunkey.server.superlink.notifying import senders_of


def doctor(
    file: Annotated[Path, typer.Argument(help="The coordinator's settings, in TOML.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Look for what is wrong at the coordinator: its settings, encoder, identity, keys, database and ports.

    Each finding is one line with the way out. Nothing is changed, and it may run while the coordinator does.
    Exit code 0: nothing was found; 2: something was.

    Example: munkey-server doctor coordinator.toml
    """
    raise typer.Exit(diagnose(file, only_stopping=False, as_json=as_json))


def diagnose(file: Path, *, only_stopping: bool, as_json: bool, only: str | None = None) -> int:
    """Show what is wrong at the coordinator, as `show_findings`, and return its exit code.

    With `only`, what is looked for is what the program of that name needs: others may be another user's.
    """
    try:
        settings = CoordinatorFile.read(file)
    except FedmunkeyError as error:
        return show_findings(file, [Finding.of(error)], "", only_stopping=only_stopping, as_json=as_json)
    ledger = shown(ledger_url(settings.ledger))
    sound = f"{file} can be used: coordinator {settings.coordinator_dir}, ledger {ledger}"
    return show_findings(file, find(settings, only), sound, only_stopping=only_stopping, as_json=as_json)


def find(settings: CoordinatorFile, only: str | None = None) -> list[Finding]:
    """Return what is wrong at the coordinator that some settings are of, or with one of its programs."""
    checks = [
        partial(_identity, settings),
        partial(_database, settings),
        partial(_run, settings),
    ]
    if only in (None, DELETION_SERVICE):
        # No other program may read the authority's key, or the log's.
        checks.append(partial(_keys, settings))
    if only in (None, NOTICES):
        checks.append(partial(_notices, settings))
    return examine([*checks, partial(_ports, settings, only)])


def check_hosts(settings: CoordinatorFile, identity: Identity) -> None:
    """Check that the coordinator's certificate names the hosts by which it reaches its own services.

    Raises `InvalidSetting` if it does not; the message says how to get one that does.
    """
    hosts = hosts_of(identity.certificate)
    for address in (settings.superlink_control, loopback_address(settings.deletion_service)):
        host = split_address(address)[0].strip("[]")
        if host not in hosts:
            options = " ".join(f"--host {name}" for name in (*hosts, host))
            raise InvalidSetting(
                f"the coordinator reaches itself at {address}, and its certificate names {', '.join(hosts)} only; "
                f"run munkey-server renew {options}"
            )


def _identity(settings: CoordinatorFile) -> Iterator[Finding]:
    identity = CoordinatorFolder(settings.coordinator_dir).read_identity()
    yield from expiring(identity, "munkey-server renew", utc_now())
    check_hosts(settings, identity)


def _keys(settings: CoordinatorFile) -> Iterator[Finding]:
    folder = CoordinatorFolder(settings.coordinator_dir)
    if not folder.authority.exists():
        # It is somebody else's folder, or none; the identity's finding says so.
        return
    folder.read_authority()
    yield from missing(folder.log_key, "the log's key", "put its copy back: sites know the log by it")
    trust = settings.keys or folder.trust
    trusted = TrustedKeys.read(trust) if trust.exists() or settings.keys else None
    if trusted is None or not trusted.of(Role.OFFICER):
        yield Finding(
            f"{trust} has no officer's key, so an officer's requests are refused or not checked",
            f"munkey-server trust add officer officer.pub --role officer --in {trust}",
            stops=False,
        )


def _notices(settings: CoordinatorFile) -> Iterator[Finding]:
    senders_of(settings)
    return iter(())


def _database(settings: CoordinatorFile) -> Iterator[Finding]:
    url = ledger_url(settings.ledger)
    if url.get_backend_name() == SQLITE and not Path(str(url.database)).exists():
        # Not to be opened, which would make it.
        way_out = "put its copy back before munkey-server up makes an empty one, or correct database"
        yield Finding(f"there is no ledger {shown(url)}", way_out, stops=False)
        return
    engine = open_engine(url)
    try:
        engine.connect().close()
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", error)).split())
        yield Finding(f"the database {shown(url)} cannot be reached: {reason}", "start it, or correct database")
    finally:
        engine.dispose()


def _run(settings: CoordinatorFile) -> Iterator[Finding]:
    run = settings.run_settings()
    if run.encoder_weights and run.encoder != ONNX:
        way_out = "correct encoder-weights in [run]; each site needs its own copy for import"
        gone = list(missing(Path(run.encoder_weights), "encoder-weights in [run]:", way_out))
        yield from gone
        if gone:
            return
    # It brings torch, which nothing else here needs.
    from fedmunkey.common.model.encoders import feature_shape

    feature_shape(
        run.encoder,
        run.image_shape,
        weights=run.encoder_weights,
        size=run.encoder_size,
        pooling=run.encoder_pooling,
    )
    try:
        settings.check_card(run)
    except InvalidInput as error:
        # Deletions wait for no agreement; runs do.
        found = Finding.of(error)
        yield replace(found, what=f"no run can begin: {found.what}", stops=False)


def _ports(settings: CoordinatorFile, only: str | None) -> Iterator[Finding]:
    listening = [
        (setting, address, program)
        for setting, address, program in (
            ("superlink", settings.superlink, SUPERLINK),
            ("superlink-control", settings.superlink_control, SUPERLINK),
            ("deletion-service", settings.deletion_service, DELETION_SERVICE),
            ("joining", settings.joining, DELETION_SERVICE),
            ("metrics", settings.metrics, DELETION_SERVICE),
        )
        if address and only in (None, program)
    ]
    return taken_ports(settings.coordinator_dir, listening)
