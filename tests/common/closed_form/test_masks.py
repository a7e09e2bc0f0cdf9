"""Masks cancel in the sum and nowhere else, and only the federation's own sites can make them."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray
from scipy import stats

from fedmunkey.common.clock import utc_now
from fedmunkey.common.closed_form.masks import Participants
from fedmunkey.common.errors import InvalidIdentity, InvalidProof
from fedmunkey.common.identities.identity import MemberRole, certificate_pem
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder

Key = ec.EllipticCurvePrivateKey
Mask = NDArray[np.uint64]
UNLIKELY = 1e-4


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CoordinatorFolder(tmp_path_factory.mktemp("federation") / "coordinator").create("federation", ["127.0.0.1"])


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CoordinatorFolder(tmp_path_factory.mktemp("other") / "coordinator").create("other", ["127.0.0.1"])


def key_of(number: int) -> Key:
    """Return a key that is the same in each run."""
    return ec.derive_private_key(1000 + number, ec.SECP256R1())


def certificate(
    authority: CertificateAuthority,
    key: Key,
    name: str,
    *,
    role: MemberRole = MemberRole.SITE,
    days_ago: float = 0.0,
    days: float = 1.0,
) -> str:
    start = utc_now() - timedelta(days=days_ago)
    return certificate_pem(authority.issue(key.public_key(), role, name, start, days=days)).decode()


def names(count: int) -> dict[str, Key]:
    return {f"hospital-{number}": key_of(number) for number in range(1, count + 1)}


def participants(authority: CertificateAuthority, keys: dict[str, Key], round_id: str = "1-round") -> Participants:
    certificates = {name: certificate(authority, key, name) for name, key in keys.items()}
    return Participants.check(round_id, certificates, authority.certificate, fewest=3)


def masks(who: Participants, keys: dict[str, Key], purpose: str = "sums", length: int = 50) -> dict[str, Mask]:
    return {name: who.mask(name, key, purpose, length) for name, key in keys.items()}


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7])
def test_masks_of_all_cancel_and_those_of_fewer_do_not(authority: CertificateAuthority, count: int) -> None:
    keys = names(count)
    found = masks(participants(authority, keys), keys)

    assert not np.sum(list(found.values()), axis=0, dtype=np.uint64).any()
    for left in found:
        rest = np.sum([mask for name, mask in found.items() if name != left], axis=0, dtype=np.uint64)
        assert (rest != 0).all()


def test_order_in_which_participants_are_announced_does_not_count(authority: CertificateAuthority) -> None:
    keys = names(4)
    turned = dict(reversed(keys.items()))

    assert masks(participants(authority, keys), keys)["hospital-2"].tolist() == (
        masks(participants(authority, turned), turned)["hospital-2"].tolist()
    )


def test_each_mask_is_uniform(authority: CertificateAuthority) -> None:
    keys = names(3)
    found = masks(participants(authority, keys), keys, length=40_000)

    for mask in found.values():
        # A contribution is small beside 2^64, and just as uniform with a mask on it.
        for numbers in (mask, mask + np.arange(40_000, dtype=np.uint64)):
            places = numbers.astype("<u8").view(np.uint8).reshape(-1, 8)
            for place in range(8):
                counts = np.bincount(places[:, place], minlength=256)
                assert stats.chisquare(counts).pvalue > UNLIKELY
    pairs = [np.corrcoef(a.astype(float), b.astype(float))[0, 1] for a in found.values() for b in found.values()]
    assert sorted(np.abs(pairs))[-4] < 0.9


def test_masks_differ_by_purpose_round_and_participants(authority: CertificateAuthority) -> None:
    keys = names(4)
    three = dict(list(keys.items())[:3])
    one = participants(authority, keys)
    found = [
        masks(one, keys)["hospital-1"],
        masks(one, keys, "tallies")["hospital-1"],
        masks(participants(authority, keys, "2-round"), keys)["hospital-1"],
        masks(participants(authority, three), three)["hospital-1"],
    ]

    everything = Counter(number for mask in found for number in mask.tolist())
    assert set(everything.values()) == {1}
    assert masks(one, keys, length=9)["hospital-1"].tolist() == found[0][:9].tolist()


def test_pair_of_sites_shares_no_mask_with_a_third(authority: CertificateAuthority) -> None:
    # Whoever knows a third site's key cannot make what two others have agreed on.
    keys = names(3)
    who = participants(authority, keys)
    known = masks(who, keys)
    impostor = {**keys, "hospital-1": key_of(77)}

    forged = masks(participants(authority, impostor), impostor)

    assert not set(known["hospital-1"].tolist()) & set(forged["hospital-1"].tolist())


# Who may not take part.


def refused(authority: x509.Certificate, certificates: dict[str, str], fewest: int = 3) -> str:
    with pytest.raises((InvalidProof, InvalidIdentity)) as caught:
        Participants.check("1-round", certificates, authority, fewest=fewest)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_are_refused(authority: CertificateAuthority, count: int) -> None:
    certificates = {name: certificate(authority, key, name) for name, key in names(count).items()}

    part = "1 site takes" if count == 1 else f"{count} sites take"
    assert refused(authority.certificate, certificates).startswith(
        f"{part} part: of fewer than 3 each would learn the others' sums"
    )
    assert len(Participants.check("1-round", certificates, authority.certificate, fewest=0).keys) == count


def test_foreign_certificates_are_refused(authority: CertificateAuthority, stranger: CertificateAuthority) -> None:
    good = {name: certificate(authority, key, name) for name, key in names(3).items()}
    key, name = key_of(2), "hospital-2"
    for pem, reason in (
        (certificate(stranger, key, name), "was not signed by the authority"),
        (good["hospital-3"], "is that of somebody else"),
        (certificate(authority, key, name, role=MemberRole.OFFICER), "is that of somebody else"),
        (certificate(authority, key, name, days_ago=3), "is not valid now"),
        (certificate(authority, key, name, days_ago=-2), "is not valid now"),
        (certificate(authority, key_of(1), name), "two sites of a round have one key"),
        ("", "the certificate of 'hospital-2' in a round"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "the certificate of 'hospital-2' in a round",
        ),
    ):
        assert reason in refused(authority.certificate, {**good, name: pem})


def test_who_is_not_announced_makes_no_mask(authority: CertificateAuthority) -> None:
    keys = names(3)
    who = participants(authority, keys)

    for name, key in (("hospital-4", key_of(4)), ("hospital-1", key_of(2)), ("hospital-1", key_of(9))):
        with pytest.raises(InvalidProof, match=f"{name} is not among the sites of this round, or not with this key"):
            who.mask(name, key, "sums", 3)
