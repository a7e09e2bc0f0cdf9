from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signing.signing_key import PublicKey, SigningKey

# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_signatures_are_those_of_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    key = SigningKey.from_seed(bytes.fromhex(secret))

    assert key.public.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert key.public.verifies(bytes.fromhex(signature), bytes.fromhex(message))
    assert not key.public.verifies(bytes.fromhex(signature), bytes.fromhex(message) + b"\0")


def test_second_spelling_of_a_signature_is_refused() -> None:
    """RFC 8032, section 5.1.7: S must be below the order of the group, or a signature could be written twice."""
    order = 2**252 + 27742317777372353535851937790883648493
    secret, _, message, signature = RFC_8032[1]
    raw = bytes.fromhex(signature)
    other = raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")

    assert not SigningKey.from_seed(bytes.fromhex(secret)).public.verifies(other, bytes.fromhex(message))


def test_key_is_written_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    key = SigningKey.generate()
    key.write(path)
    (tmp_path / "key.pub").write_bytes(key.public.pem())

    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.read(path).public == key.public == PublicKey.read(tmp_path / "key.pub")
    assert PublicKey.parse(key.public.raw.hex()) == key.public
    with pytest.raises(FileExistsError):
        SigningKey.generate().write(path)
    assert SigningKey.read(path).public == key.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622])
def test_private_key_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.pem"
    SigningKey.generate().write(path)
    path.chmod(mode)

    with pytest.raises(InvalidProof, match="chmod 600"):
        SigningKey.read(path)


def test_keys_of_other_kinds_and_no_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    other = generate_private_key(SECP256R1())
    pem = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = other.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for data in (pem, public, b"", b"nothing", SigningKey.generate().public.pem()):
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(InvalidProof, match="no Ed25519 private key"):
            SigningKey.read(path)
    for data in (pem, public, b""):
        path.write_bytes(data)
        with pytest.raises(InvalidProof, match="no Ed25519 public key"):
            PublicKey.read(path)
    with pytest.raises(InvalidProof, match="cannot be read"):
        SigningKey.read(tmp_path / "none")


def test_key_does_not_show_itself() -> None:
    seed = bytes(range(32))

    assert seed.hex()[:8] not in repr(SigningKey.from_seed(seed))
