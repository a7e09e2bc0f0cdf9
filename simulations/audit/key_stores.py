"""Deletion as hospitals do it: orders applied to real key stores, in place of taking rows out of memory."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.bank import read_bank
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, Records
from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.simulations.federation.answers import HospitalBank
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Hospital, open_hospital
from fedmunkey.simulations.federation.solved_federation import SolvedFederation, SolvedPlace, solve_federation
from fedmunkey.simulations.unlearning.munkey import MunkeyFederation


def delete_in_key_stores(
    trained: MunkeyFederation, case: Case, encoder: Encoder, folder: Path
) -> tuple[MunkeyFederation, float]:
    """Fill a key store for each hospital, apply the case's deletions as orders, and read back what is left.

    The banks of `trained` are in the order of the hospitals' training records; `encoder` made their keys, and `folder`
    is empty. Returned are the federation with the banks that the key stores hold, and the seconds that the slowest
    hospital took for all its orders.
    """
    secret = FederationSecret.generate()
    places, ids, seconds = {}, {}, []
    for hospital in case.hospitals:
        held = Hospital(hospital.name, SiteFolder(folder / hospital.name), hospital.given.split(Split.TRAIN))
        open_hospital(held, trained.settings, encoder, case.shape, secret)
        with held.folder.open() as store:
            bank = read_bank(store, Recipe.of(trained.settings).neighbours)
            store.records.write_tokens(bank.generation, bank.entries, trained.places[hospital.name].bank.tokens)
            start = time.perf_counter()
            _apply(store, hospital, case, secret)
            seconds.append(time.perf_counter() - start)
            left = read_bank(store, Recipe.of(trained.settings).neighbours)
            places[hospital.name] = HospitalBank(left, store.records.read_keys(left.entries))
            ids[hospital.name] = np.array([record for record, _ in store.records.read_ids(left.entries)], dtype=np.str_)
    return MunkeyFederation(trained.model, places, trained.settings, ids), max(seconds)


def delete_in_solved_stores(
    trained: SolvedFederation, case: Case, encoder: Encoder, folder: Path
) -> tuple[SolvedFederation, float]:
    """Do as `delete_in_key_stores` under `exact`: weights and tokens are then solved anew from what the stores hold."""
    secret, read = FederationSecret.generate(), trained.release.feature_map
    places, seconds = {}, []
    for hospital in case.hospitals:
        held = Hospital(hospital.name, SiteFolder(folder / hospital.name), hospital.given.split(Split.TRAIN))
        open_hospital(held, trained.settings, encoder, case.shape, secret)
        with held.folder.open() as store:
            start = time.perf_counter()
            _apply(store, hospital, case, secret)
            seconds.append(time.perf_counter() - start)
            places[hospital.name] = SolvedPlace.of_store(store, read)
    start = time.perf_counter()
    renewed = solve_federation(places, trained.settings, read)
    return renewed, max(seconds) + time.perf_counter() - start


def _apply(store: KeyStore, hospital: Hospital, case: Case, secret: FederationSecret) -> None:
    here = [deletion[hospital.name] for deletion in case.deletions if len(deletion[hospital.name])]
    for number, rows in enumerate(here, start=1):
        records = hospital.given.records.record_ids[rows].tolist()
        target = Records(frozenset(secret.reference(record) for record in records), hospital.name)
        request = DeletionRequest(f"audit-{number}-{hospital.name}", hospital.name, target)
        store.orders.apply(DeletionOrder(number, hospital.name, request))
