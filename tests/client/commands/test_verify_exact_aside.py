"""What `munkey-client verify-exact` builds aside cannot be read by anybody else, whenever its process is killed."""

from __future__ import annotations

from fedmunkey.client.learning.exact_state import compare_with_rebuilt
from fedmunkey.client.site import SiteFolder


def test_second_store_has_no_master_key_on_the_disk(folder: SiteFolder) -> None:
    seen = set[str]()

    def look(_records: int) -> None:
        seen.update(path.name for path in folder.path.glob(".verifying-*/**/*") if path.is_file())

    compare_with_rebuilt(folder, progress=look)

    assert {"keystore.sqlite", "keystore.keys"} <= seen
    assert "keystore.master" not in seen
