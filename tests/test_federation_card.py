"""The federation card from the coordinator to every use of it at a site, with real sites in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message

from fedmunkey.client.importing.conventions import Conventions, write_conventions
from fedmunkey.client.importing.splits import SplitRule
from fedmunkey.client.membership.site_card import MemberCards, Taken
from fedmunkey.client.site import SiteFolder, hospital_name
from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.identities.signed_card import CARDS_FOLDER, CardChain
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.programs.round_messages import ANNOUNCE, CARD, CONTRIBUTE, SITE, TALLY
from fedmunkey.common.settings.settings import ImageShape, Settings
from fedmunkey.server.rounds.run_record import EVENTS, RunRecord
from fedmunkey.server.rounds.solving_rounds import SolvingRounds
from tests.cards import make_card
from tests.coordinator import Coordinator, running_coordinator
from tests.solved_sites import ENCODER, Hospital, SitesGrid, digits, feature_map, make_hospital, solved_settings

NAMES = tuple(f"digit {number}" for number in range(10))
GOOD = 3
COLOUR = DescriptorEncoder(3)


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    """A coordinator whose card has had two versions."""
    with running_coordinator(tmp_path_factory.mktemp("federation") / "coordinator") as running:
        settings = solved_settings(running.work, running.address)
        make_card(running, NAMES[:9], settings.replace(num_classes=9), ENCODER.facts)
        make_card(running, NAMES, settings, ENCODER.facts, "the digit 9 was missing")
        yield running


@pytest.fixture
def settings(tmp_path: Path, coordinator: Coordinator) -> Settings:
    """Those of a run under the card."""
    card = coordinator.folder.read_cards().current
    assert card is not None
    return solved_settings(tmp_path, coordinator.address, min_sites=GOOD, federation_card=card.digest)


class Members:
    """Members of the federation, made one after the other."""

    def __init__(self, folder: Path, coordinator: Coordinator, settings: Settings) -> None:
        self.folder, self.coordinator, self.settings = folder, coordinator, settings
        self.hospitals: list[Hospital] = []
        self.changes: dict[int, Callable[[Message], Message]] = {}

    def add(self, made_with: Settings | None = None, promised: str | None = None) -> Hospital:
        """Add a site whose store is made, and whose coordinator asks, as the card says unless it is told otherwise."""
        number = len(self.hospitals) + 1
        rows = range(15 * number, 15 * number + 15)
        hospital = make_hospital(
            *(self.folder, number, made_with or self.settings, [digits(rows)] if made_with is None else []),
            coordinator=self.coordinator,
            promised=promised,
        )
        hospital.settings = self.settings
        conventions = Conventions(self.settings.image_shape, NAMES, "", SplitRule(), {})
        write_conventions(hospital.folder, conventions)
        self.hospitals.append(hospital)
        return hospital

    def settle(self, hospital: Hospital, **changes: Any) -> None:
        """Let a site have imported something else first."""
        conventions = Conventions(self.settings.image_shape, NAMES, "", SplitRule(), {})
        write_conventions(hospital.folder, replace(conventions, **changes))

    def reply(self, change: Callable[[Message], Message]) -> None:
        """Let the last site answer otherwise."""
        self.changes[len(self.hospitals)] = change

    def run(self) -> tuple[SitesGrid, Path]:
        """Run a round with all of them; return who was asked what, and where its events are."""

        def change(node: int, _message: Message, reply: Message) -> Message:
            return self.changes[node](reply) if node in self.changes else reply

        sites, folder = SitesGrid(self.hospitals, change), Path(self.settings.output_dir)
        # As a SuperLink with authenticated SuperNodes knows them.
        nodes = [SimpleNamespace(node_id=each, name=hospital_name(each)) for each in range(1, len(self.hospitals) + 1)]
        sites.grid.get_nodes.side_effect = lambda: nodes
        record = RunRecord(folder, {})
        authority = self.coordinator.authority.certificate
        rounds = SolvingRounds(
            sites.grid, self.settings, feature_map(self.settings), record, lambda _number: None, authority
        )
        rounds.run()
        return sites, folder / EVENTS


def saying(card: str | None) -> Callable[[Message], Message]:
    """Return what makes a reply name another card, or none."""

    def change(reply: Message) -> Message:
        who = ConfigRecord({SITE: reply.content.config_records[SITE][SITE]})
        if card is not None:
            who[CARD] = card
        reply.content[SITE] = who
        return reply

    return change


def other_store(members: Members, encoder: DescriptorEncoder, settings: Settings) -> None:
    """Add a site whose store was made with another encoder or path."""
    hospital = members.add()
    for path in hospital.folder.path.glob("keystore.*"):
        path.unlink()
    shape = ModelShape.of(Recipe.of(settings), encoder.feature_shape)
    name = hospital_name(len(members.hospitals))
    SiteFolder(hospital.folder.path).create(name, settings, encoder, shape).close()


def keep_cards(hospital: Hospital, chain: CardChain) -> None:
    MemberCards.of(hospital.folder).keep(chain, Taken.JOINED, utc_now())


def damage(hospital: Hospital) -> None:
    path = hospital.folder.path / CARDS_FOLDER / "2.json"
    path.write_bytes(path.read_bytes().replace(b"payloadType", b"payloadtype"))


def add_mismatched(members: Members, others: CardChain) -> dict[str, str]:
    """Add sites that do not agree with the card, each in its own way; return by name what the refusal says."""
    told, settings = members.settings, members.settings
    chain = members.coordinator.folder.read_cards()
    said: dict[str, str] = {}

    def expect(reason: str) -> None:
        said[hospital_name(len(members.hospitals))] = reason

    members.settle(members.add(), classes=tuple(reversed(NAMES)))
    expect("classes is digit 9, digit 8, digit 7")
    members.settle(members.add(), classes=(*NAMES, "a letter"))
    expect("digit 9, a letter, the card has digit 0")
    members.settle(members.add(), classes=(*NAMES[:4], "digit four", *NAMES[5:]))
    expect("digit 3, digit four, digit 5")
    members.settle(members.add(), classes=NAMES[1:])
    expect("classes is digit 1, digit 2")
    members.settle(members.add(), image_shape=ImageShape((1, 28, 28)))
    expect("image-shape is 1x28x28, the card has 1x8x8")
    other_store(members, COLOUR, settings.replace(image_shape="3x8x8"))
    expect("encoder-version is 2:3x8:8x4, the card has 2:1x8:8x4; features is 3x8x8, the card has 1x8x8")
    other_store(members, ENCODER, settings.replace(image_path="frozen"))
    expect("features is 16x12, the card has 1x8x8; image-path is frozen, the card has patches")
    other_store(members, ENCODER, settings.replace(image_shape="1x12x12"))
    expect("features is 1x12x12, the card has 1x8x8")
    other_store(members, ENCODER, settings.replace(exemplar_size=16))
    expect("exemplar-size is 16, the card has 8")
    members.add(settings, promised="empirical")
    expect("guarantee is empirical, the card has exact")
    for name, value in (
        ("random_features", 41),
        ("renew_within", 30.0),
        ("learns_from", "permanent"),
        ("num_classes", 11),
        ("encoder_mirror", False),
        ("encoder", "resnet18"),
        ("image_shape", "3x8x8"),
        ("fewest_changed", 0),
    ):
        members.add().settings = told.replace(**{name: value})
        expect(f"what the coordinator asks differs from the federation card (version 2): {name.replace('_', '-')} is")
    keep_cards(members.add(), chain.until(1))
    expect("this site has version 1 (")
    hospital = members.add()
    keep_cards(hospital, chain)
    damage(hospital)
    expect("cards/2.json: an envelope does not have exactly the fields")
    hospital = members.add()
    others.write(hospital.folder.path)
    expect("the federation card is not the authority's")
    members.add()
    members.reply(saying(None))
    expect("federation card: the site has none, the run is under")
    members.add()
    members.reply(saying("ab" * 32))
    expect("federation card: the site has abababababab, the run is under")
    return said


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> CardChain:
    """The card of another federation."""
    with running_coordinator(tmp_path_factory.mktemp("others")) as running:
        make_card(running, NAMES, solved_settings(running.work, running.address), ENCODER.facts)
        return running.folder.read_cards()


@pytest.mark.usefixtures("within_a_run")
def test_mismatched_members_are_refused_by_name_and_field_before_anything_is_computed(
    tmp_path: Path, coordinator: Coordinator, settings: Settings, others: CardChain
) -> None:
    members = Members(tmp_path, coordinator, settings)
    for _ in range(GOOD):
        members.add()

    said = add_mismatched(members, others)
    sites, events = members.run()

    (event,) = [json.loads(line) for line in events.read_text().splitlines()]
    good = [hospital_name(number) for number in range(1, GOOD + 1)]
    assert len(said) >= 20
    assert sorted(event["failures"]) == sorted(said)
    assert {name: reason for name, reason in said.items() if reason not in event["failures"][name]} == {}
    assert event["sites"] == good
    # Not even sums, masked or not, were made where something differs.
    for kind in (CONTRIBUTE, TALLY):
        assert sorted({node for asked, node in sites.asked if asked == kind}) == list(range(1, GOOD + 1))


@pytest.mark.usefixtures("within_a_run")
def test_site_that_joined_before_there_was_a_card_takes_the_first_one_over_and_says_which(
    tmp_path: Path, coordinator: Coordinator, settings: Settings
) -> None:
    hospital = Members(tmp_path, coordinator, settings).add()

    reply = hospital.send(ANNOUNCE)

    assert reply.content.config_records[SITE][CARD] == settings.federation_card
    kept = MemberCards.of(hospital.folder).read()
    assert kept == coordinator.folder.read_cards()
    (noted,) = (hospital.folder.path / CARDS_FOLDER / "taken.jsonl").read_text().splitlines()
    assert (json.loads(noted)["version"], json.loads(noted)["how"]) == (2, "first")


@pytest.mark.usefixtures("within_a_run")
def test_site_with_a_card_takes_part_in_no_run_without_one(
    tmp_path: Path, coordinator: Coordinator, settings: Settings
) -> None:
    hospital = Members(tmp_path, coordinator, settings).add()
    hospital.send(ANNOUNCE)
    hospital.settings = settings.replace(federation_card="")

    assert "the run is under none" in str(hospital.send(ANNOUNCE).error.reason)


@pytest.mark.usefixtures("within_a_run")
def test_round_in_which_nobody_agrees_stops_and_names_everybody(
    tmp_path: Path, coordinator: Coordinator, settings: Settings
) -> None:
    members = Members(tmp_path, coordinator, settings)
    for _ in range(2):
        members.settle(members.add(), classes=tuple(reversed(NAMES)))
    members.settings = settings.replace(min_sites=2)

    with pytest.raises(FederationStopped) as stopped:
        members.run()

    for number in (1, 2):
        assert f"hospital-{number}: hospital-{number} differs from the federation card" in str(stopped.value)
