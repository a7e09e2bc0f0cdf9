from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import Statement
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
KEY, OTHER = SigningKey.from_seed(bytes(32)), SigningKey.from_seed(bytes([1] * 32))
SIGNED = Statement("a", bytes(32), "urn:example:said", {}).sign(KEY)
TRUSTED = TrustedKey("hospital-1", Role.SITE, KEY.public, NOW - DAY, NOW + DAY)


def test_file_keeps_every_key(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    keys = TrustedKeys((TRUSTED, TrustedKey("officer", Role.OFFICER, OTHER.public, revoked=NOW)))
    keys.write(path)

    assert TrustedKeys.read(path) == keys
    assert [entry.name for entry in tmp_path.iterdir()] == ["trust.json"]


def test_key_verifies_in_its_role_under_its_name_in_its_time() -> None:
    keys = TrustedKeys((TRUSTED,))

    assert keys.verify(SIGNED, Role.SITE, NOW, "hospital-1") == (TRUSTED,)
    for role, name in ((Role.OFFICER, None), (Role.LOG, None), (Role.SITE, "hospital-2")):
        with pytest.raises(InvalidProof, match="not trusted"):
            keys.verify(SIGNED, role, NOW, name)
    with pytest.raises(InvalidProof, match="expired on 2026-03-02"):
        keys.verify(SIGNED, Role.SITE, NOW + DAY)
    with pytest.raises(InvalidProof, match="valid only from 2026-02-28"):
        keys.verify(SIGNED, Role.SITE, NOW - 2 * DAY)


def test_nothing_that_a_revoked_key_signed_is_believed() -> None:
    keys = TrustedKeys((TRUSTED,)).revoke(KEY.public.key_id[:8], NOW + DAY)

    with pytest.raises(InvalidProof, match="revoked on 2026-03-02"):
        keys.verify(SIGNED, Role.SITE, NOW)


@pytest.mark.parametrize("key_id", ["", KEY.public.key_id[:7], "0" * 64])
def test_key_to_revoke_must_be_named_clearly(key_id: str) -> None:
    with pytest.raises(InvalidProof, match="first 8 digits"):
        TrustedKeys((TRUSTED,)).revoke(key_id, NOW)


def test_key_has_one_holder() -> None:
    with pytest.raises(InvalidProof, match="trusted already"):
        TrustedKeys((TRUSTED,)).add(TrustedKey("officer", Role.OFFICER, KEY.public))


def test_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    TrustedKeys((TRUSTED,)).write(path)
    path.chmod(0o664)

    with pytest.raises(InvalidProof, match="chmod 644"):
        TrustedKeys.read(path)


def entry(**changes: Any) -> dict[str, Any]:
    whole = {"name": "a", "role": "site", "key": KEY.public.raw.hex(), "from": None, "until": None, "revoked": None}
    return {**whole, **changes}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"keys": [], "keys": []}',
        json.dumps({"keys": [entry(role="king")]}),
        json.dumps({"keys": [entry(key="00")]}),
        json.dumps({"keys": [entry(name="")]}),
        json.dumps({"keys": [entry(revoked=False)]}),
        json.dumps({"keys": [entry(until="tomorrow")]}),
        json.dumps({"keys": [entry(algorithm="rsa")]}),
        json.dumps({"keys": [entry(), entry(name="b")]}),
    ],
)
def test_file_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trust.json"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(InvalidProof):
        TrustedKeys.read(path)


def test_changes_at_the_same_moment_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "site" / "trust.json"
    added = [TrustedKey(f"officer-{at}", Role.OFFICER, SigningKey.generate().public) for at in range(16)]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: TrustedKeys.change(path, lambda keys: keys.add(key)), added))

    assert set(TrustedKeys.read(path).keys) == set(added)


def test_change_that_is_refused_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    TrustedKeys((TRUSTED,)).write(path)

    with pytest.raises(InvalidProof, match="trusted already"):
        TrustedKeys.change(path, lambda keys: keys.add(TRUSTED))

    assert TrustedKeys.read(path) == TrustedKeys((TRUSTED,))
