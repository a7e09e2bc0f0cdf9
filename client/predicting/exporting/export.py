"""Writing a site's predictor as an ONNX file: solved weights, with the site's memory where it is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

import numpy as np

from fedmunkey.client.deletions.lineage.exported_models import ExportedModel, ExportRegister, describe
from fedmunkey.client.deletions.promised_renewal import CONTRIBUTED, INSTRUCTED
from fedmunkey.client.importing.agreement import read_card
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.own_memory import read_memory
from fedmunkey.client.predicting.exporting.answers_graph import add_answers, add_numbers
from fedmunkey.client.predicting.exporting.encoder_reader import Reader, reader_of
from fedmunkey.client.predicting.exporting.facts import FORMAT, OWN_MEMORY, SHARED_ONLY, content_digest, put_facts
from fedmunkey.client.predicting.exporting.graph import NEWEST, Graph
from fedmunkey.client.predicting.prediction import CaseMix
from fedmunkey.client.predicting.predictor import Predictor, choose_predictor
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.closed_form.memory import Memory
from fedmunkey.common.closed_form.release import Release
from fedmunkey.common.errors import InvalidInput, InvalidWeights, count_of
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.private_files import replace_file
from fedmunkey.common.settings.settings_text import ConfigValue


class Begin(StrEnum):
    """What an exported model reads."""

    AUTO = "auto"
    PICTURES = "pictures"
    FEATURES = "features"


@dataclass(frozen=True)
class Exported:
    """What was written, what it reads, and why that are no pictures where it is not."""

    model: ExportedModel
    begins: Begin
    why: str
    facts: Mapping[str, str]


def export(
    folder: SiteFolder,
    path: Path,
    given: dict[str, ConfigValue],
    mix: CaseMix,
    begin: Begin = Begin.AUTO,
    *,
    clock: Callable[[], datetime] = utc_now,
) -> Exported:
    """Write a site's predictor and note it in the register of what was given away, before the file is there.

    Raises `InvalidInput` where a file is there already, pictures are asked for and the encoder cannot be written,
    `InvalidWeights` where there are no solved weights or they hold what was erased, and `KeyStoreError` as `predict`.
    """
    if path.exists():
        raise InvalidInput(f"{path} is there already; name another file")
    if not path.parent.is_dir():
        raise InvalidInput(f"{path.parent} is no folder; make it, or name another file")
    register, readers = ExportRegister(folder), list[tuple[Reader | None, str]]()
    with folder.open() as store:
        while True:
            store.database.check_caught_up()
            before = _state(folder, store)
            predictor = choose_predictor(folder, store, given, None)
            release = _check(folder, store, predictor)
            readers = readers or [(None, "") if begin is Begin.FEATURES else reader_of(predictor.encoder)]
            reader, why = readers[0]
            if reader is None and begin is Begin.PICTURES:
                raise InvalidInput(f"{why}, so no model can begin with pictures; leave out --begin")
            memory = read_memory(store, release)[0] if mix is CaseMix.OWN else None
            facts = _facts(folder, store, predictor, release, mix, clock())
            content, facts = _written(predictor, release, memory, reader, facts)
            model = describe(
                store,
                digest=hashlib.sha256(content).hexdigest(),
                name=path.name,
                release=release.digest(),
                case_mix=mix.value,
                time=clock(),
            )
            register.add(model)
            if _state(folder, store) == before:
                break
            # A deletion that came meanwhile has not heard of a file that is not there yet.
            register.withdraw(model.digest, clock().isoformat(timespec="seconds"))
    replace_file(path, content, 0o600)
    return Exported(model, Begin.FEATURES if reader is None else Begin.PICTURES, why, facts)


def _state(folder: SiteFolder, store: KeyStore) -> tuple[object, ...]:
    """Return what a model depends on that may change while it is written."""
    entries = store.records.count(Split.TRAIN), store.records.last_entry()
    found = folder.shared_weights.stat() if folder.shared_weights.exists() else None
    weights = None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)
    instructed = store.instructions.position()
    return store.generation, store.is_restored, store.orders.last, entries, weights, instructed


def _check(folder: SiteFolder, store: KeyStore, predictor: Predictor) -> Release:
    """Return the weights to be exported; raises `InvalidWeights` where there are none that may be."""
    release = predictor.model
    if not isinstance(release, Release):
        raise InvalidWeights(
            f"under guarantee = {predictor.recipe.settings.guarantee} answers read the bank's own entries, which leave "
            "the site in no file; only exact weights are exported"
        )
    if not folder.shared_weights.exists():
        raise InvalidWeights("the site has taken no shared weights over yet; export after the first round")
    if predictor.owed is not None:
        contributed = int(release.about.get(CONTRIBUTED, 0))
        erased = [one for one in store.orders.read_answers() if one.entries and one.number > contributed]
        named = ", ".join(dict.fromkeys(answer.request_id for answer in erased))
        raise InvalidWeights(
            f"the shared weights still hold what request {named} erased on {predictor.owed.erased:%Y-%m-%d}; export "
            "once they are renewed (munkey-server run --renew at the coordinator)"
        )
    since = int(release.about.get(INSTRUCTED, 0))
    if count := store.records.count_opted_out(since=since):
        raise InvalidWeights(
            f"the shared weights still hold what {count_of(count, 'record')} contributed that were opted out since; "
            "export once they are renewed (munkey-server run at the coordinator)"
        )
    return release


def _facts(
    folder: SiteFolder, store: KeyStore, predictor: Predictor, release: Release, mix: CaseMix, now: datetime
) -> dict[str, str]:
    """Return what a model says of itself."""
    card, encoder = read_card(folder), predictor.encoder.facts
    settings = predictor.recipe.settings
    last = store.orders.last
    return {
        "format": FORMAT,
        "federation": card.federation if card else "",
        "federation-card": str(card.version) if card else "",
        "site": store.description.site,
        "guarantee": Guarantee.EXACT.value,
        "release": release.digest(),
        "case-mix": mix.value,
        "holds": OWN_MEMORY if mix is CaseMix.OWN else SHARED_ONLY,
        "classes": json.dumps([predictor.class_name(label) for label in range(release.classes)], ensure_ascii=False),
        "generation": str(store.generation),
        "last-order": str(last),
        "contributed-up-to": str(release.about.get(CONTRIBUTED, "")),
        # So fine that no two files are the same.
        "time": now.isoformat(timespec="microseconds"),
        "encoder": encoder.fingerprint,
        "image-shape": str(settings.image_shape),
        "image-preprocessing": (
            f"grey levels 0 to 255, brought to channels x height x width = {settings.image_shape} as munkey-client "
            f"imports pictures (bilinear, over the whole area that a pixel stands for); then: {encoder.preprocessing}"
        ),
    }


def _written(
    predictor: Predictor, release: Release, memory: Memory | None, reader: Reader | None, facts: dict[str, str]
) -> tuple[bytes, dict[str, str]]:
    """Return the file's bytes, and all that it says of itself."""
    from onnx import helper

    graph, read, encoder = Graph(), release.feature_map, predictor.encoder
    tokens, size = read.features
    frozen = bool(tokens * size)
    if reader is not None:
        shape = predictor.recipe.settings.image_shape
        inputs = [graph.value("images", np.uint8, ["N", *shape])]
        keys, features = reader.add(graph, "images", shape)
    else:
        features, keys = "features", "keys"
        inputs = [graph.value(keys, np.float32, ["N", encoder.key_size])]
        inputs += [graph.value(features, np.float32, ["N", tokens, size])] if frozen else []
    numbers = add_numbers(graph, read, encoder.key_size, keys, features)
    weights = [release.weights, *([memory.weights] if memory else [])]
    given = add_answers(graph, numbers, weights, memory.temperature if memory else release.choice.temperature)
    outputs = [graph.value(given[0], np.float64, ["N", release.classes]), graph.value(given[1], np.int64, ["N"])]
    made = helper.make_graph(graph.nodes, "predictor", inputs, outputs, graph.constants)
    network = None if reader is None else reader.network
    opsets = [(opset.domain, opset.version) for opset in network.opset_import] if network else [("", NEWEST - 1)]
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid(*opset) for opset in opsets],
        ir_version=max(8, network.ir_version) if network else 8,
        producer_name="fedmunkey",
        producer_version=version("fedmunkey"),
        functions=list(network.functions) if network else [],
    )
    facts = {**facts, "begins-with": "features" if reader is None else "pictures"}
    facts = {**facts, "content": content_digest(model, facts)}
    put_facts(model, facts)
    return model.SerializeToString(deterministic=True), facts
