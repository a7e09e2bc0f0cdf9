"""What an exported model says of itself, in its file's metadata; a file that was changed since says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmunkey.common.errors import InvalidWeights, brought_by

FORMAT = "1"
SHARED_ONLY = "the federation's shared weights; no key, token or memory of the site"
OWN_MEMORY = (
    "the federation's shared weights, and the site's memory: numbers that are solved from the records of its own "
    "patients, masked by nobody and with no noise. Treat this file as those records, and replace it after any deletion "
    "at the site"
)
_PREFIX, _CONTENT = "fedmunkey.", "content"


def put_facts(model: Any, facts: Mapping[str, str]) -> None:
    """Write facts into a model's metadata."""
    from onnx import helper

    helper.set_model_props(model, {f"{_PREFIX}{name}": value for name, value in facts.items()})


def content_digest(model: Any, facts: Mapping[str, str]) -> str:
    """Return the SHA-256 of a model without metadata, and of the facts that go into it."""
    said = json.dumps({name: value for name, value in facts.items() if name != _CONTENT}, sort_keys=True)
    return hashlib.sha256(model.SerializeToString(deterministic=True) + said.encode()).hexdigest()


def read_facts(path: Path) -> dict[str, str]:
    """Return what a model says of itself.

    Raises `InvalidWeights` if the file is no model that was exported here, or was changed since.
    """
    with brought_by("onnx", f"reading {path}"):
        import onnx
    try:
        model = onnx.load_from_string(path.read_bytes())
    except OSError as error:
        raise InvalidWeights(f"{path} cannot be read ({error.strerror}); name a model that was exported") from None
    except Exception:  # what protobuf raises has no class that it documents
        raise InvalidWeights(f"{path} is no ONNX file; name a model that munkey-client export wrote") from None
    facts = {
        prop.key.removeprefix(_PREFIX): prop.value for prop in model.metadata_props if prop.key.startswith(_PREFIX)
    }
    if facts.get("format") != FORMAT:
        raise InvalidWeights(f"{path} was not written by munkey-client export, so nothing is known of it")
    del model.metadata_props[:]
    if facts.get(_CONTENT) != content_digest(model, facts):
        raise InvalidWeights(f"{path} was changed since it was exported; take the file as it was given away")
    return facts
