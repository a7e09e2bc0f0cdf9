"""Reading corrected records of a manifest: they must be records that the site holds, each with its own subject."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.importing.conventions import read_conventions
from fedmunkey.client.importing.importer import Importer
from fedmunkey.client.importing.manifest import Manifest
from fedmunkey.client.importing.planning import Planner
from fedmunkey.client.importing.refusals import RefusedRow
from fedmunkey.client.importing.site_enrolment import SiteEnrolment
from fedmunkey.client.key_store import Enrolled, KeyStore
from fedmunkey.client.key_store.enrolment import Arrivals
from fedmunkey.client.records.dataset import Consent, Dataset
from fedmunkey.common.errors import InvalidInput, count_of
from fedmunkey.common.service.wire import MAXIMUM_REFERENCES


def read_corrected(
    manifest: Manifest, enrolment: SiteEnrolment, store: KeyStore, consent: Consent, show: Callable[[int], None]
) -> Arrivals:
    """Return the corrected records of a manifest, encoded, as the key store takes them.

    Every row must be usable: a request is for all or nothing. Raises `InvalidInput` with the first row that is not, or
    if a record is not held here under its subject, is on the opt-out list, or there are more than one request may name.
    """
    conventions = read_conventions(enrolment.folder)
    if conventions is None:
        raise InvalidInput("the site has imported nothing yet, so nothing can be corrected; munkey-client import")
    planner = Planner(manifest, conventions, enrolment.secret, consent=consent, new_consent=frozenset())
    plan = planner.plan(None)
    _check_rows(plan.refusals)
    if not 0 < plan.candidates <= MAXIMUM_REFERENCES:
        raise InvalidInput(
            f"the file corrects {count_of(plan.candidates, 'record')}; one request corrects 1 to {MAXIMUM_REFERENCES}"
        )
    parts: list[Arrivals] = []

    def take(records: Dataset) -> tuple[Enrolled, NDArray[np.bool_]]:
        """Encode some records and keep them."""
        import torch

        encoding = enrolment.encoder.encode(torch.from_numpy(records.images))
        parts.append(Arrivals.of(records, encoding, enrolment.secret, store.description))
        return Enrolled(added=len(records)), np.zeros(len(records), dtype=np.bool_)

    _check_rows(Importer(conventions, take, show).run(planner.candidates()).refusals)
    corrected = Arrivals.together(parts)
    _check_held(store, corrected)
    return corrected


def _check_rows(refusals: tuple[RefusedRow, ...]) -> None:
    if refusals:
        first = min(refusals)
        raise InvalidInput(
            f"row {first.row} cannot be used: {first.detail}; of a correction every row is, or nothing is asked for"
        )


def _check_held(store: KeyStore, corrected: Arrivals) -> None:
    """Check that each record is here under its subject, and may be used; no id is in the message."""
    pairs = list(zip(corrected.references, corrected.subjects, strict=True))
    strangers = [place for place, pair in enumerate(pairs, 1) if not store.records.holds_of(*pair)]
    opted_out = [place for place, pair in enumerate(pairs, 1) if store.records.is_opted_out(*pair)]
    for what, found in (
        ("not held here under that subject; import it instead", strangers),
        ("on the federation's opt-out list", opted_out),
    ):
        if found:
            raise InvalidInput(
                f"{count_of(len(found), 'record')} of the file, the first is number {found[0]}, cannot be corrected: "
                f"{what}"
            )
