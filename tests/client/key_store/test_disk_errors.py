from __future__ import annotations

import sqlite3

import pytest

from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.common.errors import KeyStoreError


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (sqlite3.OperationalError("disk I/O error"), "disk I/O error"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(13, "Permission denied", "/srv/site"), "/srv/site: Permission denied"),
        (OSError(), "OSError"),
    ],
)
def test_fault_of_the_disk_becomes_an_error_with_a_way_out(raised: Exception, message: str) -> None:
    with pytest.raises(KeyStoreError, match=message) as caught, faults_explained():
        raise raised

    assert "check" in str(caught.value)


def test_reader_that_has_seen_enough_is_no_fault_of_the_disk() -> None:
    with pytest.raises(BrokenPipeError), faults_explained():
        raise BrokenPipeError
