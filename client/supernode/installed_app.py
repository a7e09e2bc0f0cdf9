"""A SuperNode runs the app that is installed at the site, whatever app the coordinator sends.

Flower's SuperNode runs the code of the app that comes with a run. A coordinator that was taken over could so read
every image of every hospital. This node takes an app that holds settings and nothing else, and names this project's
ClientApp, which is then the installed one.
"""

from __future__ import annotations

import io
import logging
import tomllib
import zipfile
import zlib

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.programs.flower import MANIFEST

logger = logging.getLogger(__name__)

CLIENT_APP = "fedmunkey.client.app:app"

_MOST_PACKED = 2**20
_MOST_UNPACKED = 256 * 2**10

_UNREADABLE = (KeyError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)

_OWN_FILES = {MANIFEST, "README.md", "LICENSE", ".info/CONTENT"}
"""What an app may hold: settings, and what Flower itself adds when it packs them."""


def check_app(content: bytes) -> None:
    """Check that an app, a zip file as Flower packs it, holds no code and names this project's ClientApp.

    Raises `InvalidSetting` if it does not; the message names the first file that should not be there.
    """
    if len(content) > _MOST_PACKED:
        raise InvalidSetting(f"the coordinator's app has {len(content)} bytes; one of settings has few thousand")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            files = packed.infolist()
            names = [file.filename for file in files]
            if foreign := sorted(set(names) - _OWN_FILES):
                raise InvalidSetting(
                    f"the coordinator's app holds {foreign[0]!r}; this site runs its installed code only"
                )
            # What a zip file says that its files have is what is ever written of them.
            if large := [file for file in files if file.file_size > _MOST_UNPACKED]:
                raise InvalidSetting(
                    f"the coordinator's app holds {large[0].file_size} bytes of {large[0].filename}; settings have few "
                    "thousand"
                )
            with packed.open(MANIFEST) as written:
                # So many, whatever the zip file says of them.
                manifest = tomllib.loads(written.read(_MOST_UNPACKED).decode())
        named = manifest["tool"]["flwr"]["app"]["components"]["clientapp"]
    except (
        zipfile.BadZipFile,
        KeyError,
        UnicodeDecodeError,
        tomllib.TOMLDecodeError,
        TypeError,
        RuntimeError,
        zlib.error,
    ) as error:
        raise InvalidSetting(f"the coordinator's app cannot be read: {error}") from None
    if len(names) != len(set(names)) or named != CLIENT_APP:
        raise InvalidSetting(f"the coordinator's app names {named!r}; this site runs {CLIENT_APP} only")
