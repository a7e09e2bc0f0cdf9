"""A site that has lost what it checks orders by stops; it never becomes one that carries out anybody's orders."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from fedmunkey.client.deletions.agent import DeletionAgent, catch_up
from fedmunkey.client.deletions.site_proofs import SiteProofs
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, SiteState, WholeSite
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.identities.identity import CERTIFICATE_FILE
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKeys
from fedmunkey.server.deletions.ledger_service import LedgerService
from tests.client.deletions.test_site_proofs import ask_and_catch_up, coordinator, filled
from tests.proof_case import SECRET, SITES, START, TRUST

__all__ = ["coordinator", "filled"]

SITE = SITES[0]
NOW = START + timedelta(days=1)
UNSIGNED = DeletionOrder(1, SITE, DeletionRequest("request-1", SITE, WholeSite(SITE)))


@pytest.fixture
def secret() -> FederationSecret:
    """The fixtures of this folder enrol with the case's secret."""
    return SECRET


@pytest.fixture
def folder(filled: KeyStore) -> SiteFolder:
    return SiteFolder(filled.path.parent)


def join(folder: SiteFolder) -> None:
    """Leave what joining leaves last."""
    folder.identity.mkdir()
    (folder.identity / CERTIFICATE_FILE).write_text("a certificate")


def test_joined_site_without_trusted_keys_carries_out_nothing(filled: KeyStore, folder: SiteFolder) -> None:
    join(folder)
    folder.trust.unlink()

    for insecure in (False, True):
        with pytest.raises(
            InvalidProof, match=r"trust\.json is missing, and a site that has joined carries out no order"
        ):
            folder.open_to_hear(insecure=insecure)
    with pytest.raises(InvalidProof, match=r"trust\.json is missing"):
        SiteProofs(filled).carry_out(UNSIGNED)
    assert filled.orders.last == 0


def test_trusted_keys_that_vanish_under_a_running_site_stop_it(filled: KeyStore, folder: SiteFolder) -> None:
    proofs = SiteProofs(filled, clock=lambda: NOW)
    assert proofs.carry_out(UNSIGNED).state is SiteState.REFUSED
    folder.trust.unlink()

    with pytest.raises(InvalidProof, match=r"are gone .* so nothing that needs them is done"):
        proofs.carry_out(DeletionOrder(2, SITE, UNSIGNED.request))
    assert filled.orders.last == 1


def test_agent_of_a_joined_site_without_trusted_keys_ends(
    filled: KeyStore, folder: SiteFolder, coordinator: LedgerService
) -> None:
    join(folder)
    folder.trust.unlink()

    with pytest.raises(InvalidProof, match=r"trust\.json is missing"):
        DeletionAgent(filled, coordinator).run(threading.Event())


def test_site_that_has_not_joined_hears_unsigned_orders_if_it_is_told_so(
    store: KeyStore, fill: Callable[..., object]
) -> None:
    fill(store, range(3))
    folder = SiteFolder(store.path.parent)

    with pytest.raises(InvalidProof, match="--insecure-orders") as refused:
        folder.open_to_hear()
    with folder.open_to_hear(insecure=True) as opened:
        assert SiteProofs(opened).carry_out(UNSIGNED).records == 3
    assert re.search("munkey-client join", str(refused.value))


def test_witness_whose_journal_was_lost_waits_until_somebody_has_looked(
    filled: KeyStore, folder: SiteFolder, coordinator: LedgerService
) -> None:
    ask_and_catch_up(filled, coordinator, 1)
    filled.journal.close()
    filled.journal.path.unlink()

    with KeyStore.open(filled.path) as again:
        with pytest.raises(
            InvalidProof, match=r"what the site has seen of the coordinator's log is lost.*--accept-log"
        ):
            ask_and_catch_up(again, coordinator, 2)
        assert again.orders.last == 1
    with pytest.raises(InvalidProof, match="--accept-log"):
        folder.open_to_hear()
    with folder.open_to_hear(accept_log=True) as accepted:
        assert [answer.state for answer in catch_up(accepted, coordinator, clock=lambda: NOW)] == [SiteState.ERASED]
        assert accepted.journal.has_seen_log()


def test_head_that_was_taken_out_is_missed_and_one_that_is_there_is_kept(
    filled: KeyStore, folder: SiteFolder, coordinator: LedgerService
) -> None:
    ask_and_catch_up(filled, coordinator, 1)
    with folder.open_to_hear(accept_log=True) as opened:
        assert opened.journal.has_seen_log()
    with filled.journal.writing() as connection:
        connection.execute("DELETE FROM head")

    with pytest.raises(InvalidProof, match="--accept-log"):
        catch_up(filled, coordinator, clock=lambda: NOW)


def test_witness_that_does_not_trust_the_log_any_more_stops(
    filled: KeyStore, folder: SiteFolder, coordinator: LedgerService
) -> None:
    ask_and_catch_up(filled, coordinator, 1)
    TrustedKeys(tuple(key for key in TRUST.keys if key.role is not Role.LOG)).write(folder.trust)

    with pytest.raises(InvalidProof, match=r"no key of the coordinator's log any more.*--role log"):
        ask_and_catch_up(filled, coordinator, 2)
    assert filled.orders.last == 1
