"""What a version of the federation card says of the work itself: it is proposed by a site, decided on, then signed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmunkey.common.errors import InvalidInput, InvalidProof, InvalidSetting
from fedmunkey.common.model.encoder_facts import EncoderFacts
from fedmunkey.common.private_files import write_private
from fedmunkey.common.proofs.signing.canonical import parse_json, read_hex, take
from fedmunkey.common.settings.settings_text import ConfigValue

_MOST_BYTES = 64 * 2**10


@dataclass(frozen=True)
class CardDraft:
    """Classes in order, the encoder, and settings with every choice made (`agreed_settings`)."""

    classes: tuple[str, ...]
    encoder: EncoderFacts
    settings: Mapping[str, ConfigValue]

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        facts = self.encoder
        return {
            "classes": list(self.classes),
            "encoder": {
                "name": facts.name,
                "weights": facts.weights,
                "preprocessing": facts.preprocessing,
                "fingerprint": facts.fingerprint,
                "size": facts.size,
                "keySize": facts.key_size,
                "featureShape": list(facts.feature_shape),
            },
            "settings": dict(self.settings),
        }

    @classmethod
    def of(cls, document: Any, what: str) -> CardDraft:
        """Read what `to_document` returns; `what` names it in the message of `InvalidProof`."""
        classes, encoder, settings = take(document, what, classes=list, encoder=dict, settings=dict)
        name, weights, preprocessing, fingerprint, size, key_size, shape = take(
            encoder,
            f"the encoder of {what}",
            name=str,
            weights=str,
            preprocessing=str,
            fingerprint=str,
            size=int,
            keySize=int,
            featureShape=list,
        )
        if len(shape) != 2 or any(type(number) is not int or number < 0 for number in (size, key_size, *shape)):
            raise InvalidProof(f"{what} has numbers that cannot be")
        if not all(type(each) is str for each in classes):
            raise InvalidProof(f"{what} has classes that are no names")
        if not all(type(value) in (bool, int, float, str) for value in settings.values()):
            raise InvalidProof(f"{what} has settings that are no values")
        if weights:
            read_hex(weights, f"the digest of the weights of {what}")
        facts = EncoderFacts(name, weights, preprocessing, fingerprint, size, key_size, (shape[0], shape[1]))
        return cls(tuple(classes), facts, settings)

    def write(self, path: Path) -> None:
        """Write a proposal to a new file; raises `InvalidInput` if there is one, or it cannot be written."""
        try:
            write_private(path, (json.dumps(self.to_document(), indent=2, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise InvalidInput(f"{path} cannot be written ({error.strerror}); name another file") from None

    @classmethod
    def read(cls, path: Path) -> CardDraft:
        """Read what `write` wrote; raises `InvalidSetting` if it cannot be read or is no proposal."""
        try:
            with path.open("rb") as file:
                data = file.read(_MOST_BYTES)
            return cls.of(parse_json(data, str(path)), str(path))
        except OSError as error:
            raise InvalidSetting(
                f"{path} cannot be read ({error.strerror}); munkey-client card propose writes it"
            ) from None
        except InvalidProof as error:
            raise InvalidSetting(f"{error}; munkey-client card propose writes such a file") from None
