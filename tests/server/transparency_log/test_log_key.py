"""The log's key is made once, by whichever service is first."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.proofs.signing.signing_key import PublicKey, SigningKey
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.transparency_log.log import TransparencyLog, head_signer
from fedmunkey.server.transparency_log.log_key import open_log_key
from tests.patience import PATIENCE

SERVICES = 4


def test_services_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    for attempt in range(20):
        begin = threading.Barrier(SERVICES)

        def start(_: int, begin: threading.Barrier = begin, attempt: int = attempt) -> bytes:
            begin.wait(PATIENCE)
            return open_log_key(tmp_path / str(attempt) / "log-key.pem", "ledger.sqlite")[1].public.raw

        with ThreadPoolExecutor(SERVICES) as pool:
            (key,) = set(pool.map(start, range(SERVICES)))

        assert {path.name for path in (tmp_path / str(attempt)).iterdir()} == {"log-key.pem", "log-key.pub"}
        assert PublicKey.read(tmp_path / str(attempt) / "log-key.pub").raw == key


def test_key_that_is_there_stays(tmp_path: Path) -> None:
    first = open_log_key(None, str(tmp_path / "ledger.sqlite"))

    assert open_log_key(None, str(tmp_path / "ledger.sqlite"))[1].public == first[1].public
    assert first[0] == tmp_path / "ledger.sqlite.log-key.pem"
    assert first[0].stat().st_mode & 0o777 == 0o600


def test_ledger_that_is_no_file_needs_a_place_for_its_key() -> None:
    with pytest.raises(InvalidSetting, match="name one with --log-key"):
        open_log_key(None, "postgresql://root@localhost/test")


def test_log_that_has_heads_gets_no_other_key(tmp_path: Path) -> None:
    database = tmp_path / "ledger.sqlite"
    with Ledger(database) as ledger:
        assert head_signer(ledger.engine) is None
        place, key = open_log_key(None, str(database), head_signer(ledger.engine))
        TransparencyLog(ledger.engine, key).head()
        signer = head_signer(ledger.engine)

    assert signer == key.public.key_id
    assert open_log_key(None, str(database), signer)[1].public == key.public
    place.unlink()
    with pytest.raises(InvalidSetting, match=r"is missing; put it back"):
        open_log_key(None, str(database), signer)
    assert not place.exists()
    place.with_suffix(".pub").unlink()
    SigningKey.generate().write_pair(place)
    with pytest.raises(InvalidSetting, match=r"is another"):
        open_log_key(None, str(database), signer)
