"""Check a certificate on any machine: needs this package's files, `cryptography` and `rfc8785`, and no network.

    python -m fedmunkey.common.proofs.verify_certificate certificate.json --keys keys.json

The exit code is 0 if everything in the certificate holds, 4 if the receipt of an addressed site is missing, and 2 if
anything does not hold; with `--require-erased` 0 only if something was erased, every addressed site has answered and
none refused, otherwise the outcome's (`common.deletions.outcomes`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fedmunkey.common.errors import EXIT_CODE, InvalidProof
from fedmunkey.common.proofs import certificate_words
from fedmunkey.common.proofs.certificate import CERTIFICATE_BYTES
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.common.proofs.verification import Verified, verify_certificate


def read_and_verify(path: Path, keys: Path) -> tuple[Verified, TrustedKeys]:
    """Check a certificate's file against a file of trusted keys; raises `InvalidProof` if anything does not hold."""
    try:
        with path.open("rb") as file:
            data = file.read(CERTIFICATE_BYTES + 1)
    except OSError as error:
        raise InvalidProof(f"the certificate {path} cannot be read ({error.strerror})") from None
    trusted = TrustedKeys.read(keys)
    return verify_certificate(data, trusted), trusted


def lines(verified: Verified, keys: TrustedKeys) -> list[str]:
    """Return what is proved and what is not, for people."""
    return [
        certificate_words.headline(verified),
        "",
        "Proved, to whoever trusts the keys:",
        *(f"  - {line}" for line in certificate_words.proved(verified)),
        "",
        "Not proved:",
        *(f"  - {line}" for line in certificate_words.not_proved(verified, keys)),
    ]


def main(words: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fedmunkey.common.proofs.verify_certificate", description="Check a certificate."
    )
    parser.add_argument("certificate", type=Path, help="the certificate's file")
    parser.add_argument("--keys", type=Path, required=True, help="file of the public keys to trust")
    parser.add_argument("--require-erased", action="store_true", help="fail unless everything was erased as asked")
    parser.add_argument("--json", action="store_true", help="print JSON instead of sentences")
    given = parser.parse_args(words)
    try:
        verified, keys = read_and_verify(given.certificate, given.keys)
    except InvalidProof as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_CODE
    if given.json:
        text = json.dumps(certificate_words.document(verified, keys), indent=2, ensure_ascii=False)
    else:
        text = "\n".join(lines(verified, keys))
    sys.stdout.write(text + "\n")
    return int(verified.outcome) if given.require_erased or verified.silent else 0


if __name__ == "__main__":
    sys.exit(main())
