"""A certificate as a PDF: of one that holds, with its file inside, and nothing fetched for it."""

from __future__ import annotations

import re
import sys
import zlib
from pathlib import Path

import pytest

from fedmunkey.common.errors import InvalidProof, InvalidSetting, NotInstalled
from fedmunkey.common.proofs import certificate_pdf as room
from fedmunkey.common.proofs.certificate_pdf import certificate_pdf
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from tests.proof_case import TRUST, ProofCase, make_case


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> ProofCase:
    return make_case(tmp_path_factory.mktemp("case"))


def made(case: ProofCase) -> bytes:
    """Return the PDF; where this machine cannot make any, that is all there is to see."""
    try:
        return certificate_pdf(case.certificate, TRUST)
    except (NotInstalled, InvalidSetting) as error:
        pytest.skip(str(error))


def streams(pdf: bytes) -> list[bytes]:
    """Return what is compressed in a PDF."""
    found = []
    for packed in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            found.append(zlib.decompress(packed))
        except zlib.error:
            continue
    return found


def test_pdf_holds_the_certificates_file_and_is_tagged(case: ProofCase) -> None:
    pdf = made(case)
    inside = b"\n".join([pdf, *streams(pdf)])

    assert pdf.startswith(b"%PDF-")
    assert case.certificate in streams(pdf)
    # For screen readers (PDF/UA): a tree of its parts, a title, a language.
    assert b"/StructTreeRoot" in inside
    assert b"/Lang" in inside
    assert b"pdfuaid" in inside


def test_pdf_of_a_certificate_that_does_not_hold_is_not_made(case: ProofCase) -> None:
    with pytest.raises(InvalidProof):
        certificate_pdf(case.certificate, TrustedKeys(()))


def test_nothing_is_fetched_for_a_page(case: ProofCase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("what this machine alone should know")
    page = f'<h1>Page</h1><img src="{secret.as_uri()}"><link rel="attachment" href="{secret.as_uri()}">'
    monkeypatch.setattr(room, "certificate_page", lambda *_: page)
    pdf = made(case)

    assert not any(b"alone should know" in stream for stream in [pdf, *streams(pdf)])


def test_extra_is_named_where_it_is_missing(case: ProofCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)

    with pytest.raises(NotInstalled, match=r"weasyprint.*pip install 'fedmunkey\[pdf\]'"):
        certificate_pdf(case.certificate, TRUST)
