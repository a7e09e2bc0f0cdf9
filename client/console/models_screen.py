"""A site's models in its console: releases that it has taken over, and files that it has given away."""

from __future__ import annotations

from fastapi import Response

from fedmunkey.client.deletions.lineage.exported_models import states
from fedmunkey.client.deletions.lineage.taken_releases import read_taken
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.console.face import Face, Visit
from fedmunkey.common.console.pages import request_path
from fedmunkey.common.console.paging import Paging, page_number
from fedmunkey.common.errors import KeyStoreError

_ROWS = 20


def add_models(face: Face, folder: SiteFolder) -> None:
    """Add them to a site's console."""
    face.get("/models", lambda visit: _show(visit, folder))


def _show(visit: Visit, folder: SiteFolder) -> Response:
    fault = ""
    with folder.open() as store:
        taken = list(reversed(read_taken(folder, store)))
        try:
            exported = list(reversed(states(folder, store)))
        except KeyStoreError as error:
            exported, fault = [], str(error)
    given = visit.request.query_params
    releases, files = given.get("releases", ""), given.get("exported", "")
    of_releases = Paging(page_number(releases), _ROWS, len(taken), "/models", {"exported": files}, "releases")
    of_files = Paging(page_number(files), _ROWS, len(exported), "/models", {"releases": releases}, "exported")
    return visit.draw(
        "own_models.html",
        taken=of_releases.cut(taken),
        exported=of_files.cut(exported),
        fault=fault,
        paging={"releases": of_releases, "exported": of_files},
        request_path=request_path,
    )
