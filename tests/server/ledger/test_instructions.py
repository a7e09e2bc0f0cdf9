"""Instructions in the ledger: what a hold keeps out, and a ledger that went back to a copy has lost none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select

from fedmunkey.common.deletions.words import Records, Subject, WholeSite
from fedmunkey.common.errors import DeletionExists, DeletionHeld, InvalidSetting, NotAllowed
from fedmunkey.common.proofs.governance.blocks import Block, verify_block
from fedmunkey.common.proofs.governance.instructions import Instruction, InstructionKind, sign_instruction
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.server.database.instruction_tables import InstructionRow
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.ledger.instruction_journal import FILE_NAME
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.transparency_log.log import TransparencyLog
from tests.proof_case import LOG, OFFICER_KEY, SECRET, SITES, START, STRANGER, TRUST, signed_request

HELD = Subject(SECRET.reference("patient-17"))


def instruction(
    about: Records | Subject | bytes = HELD,
    name: str = "case-1",
    kind: str = "hold",
    key: SigningKey = OFFICER_KEY,
    minutes: float = 0,
) -> Instruction:
    issued = START + timedelta(minutes=minutes)
    return sign_instruction(name, InstructionKind(kind), about, key, SECRET.federation_id, issued)


def records(*names: str) -> Records:
    return Records(frozenset(map(SECRET.reference, names)))


@pytest.fixture
def opened(database: str, tmp_path: Path) -> Callable[[], AbstractContextManager[LedgerService]]:
    """Return what opens a deletion service on one ledger and folder, as often as it is called."""
    TRUST.write(tmp_path / "trust.json")

    @contextmanager
    def opening() -> Iterator[LedgerService]:
        with Ledger(database, clock=lambda: START, instructions=tmp_path / FILE_NAME) as ledger:
            for site in SITES:
                ledger.register(site)
            log = TransparencyLog(ledger.engine, LOG, clock=lambda: START)
            proofs = CoordinatorProofs(log, tmp_path / "trust.json", clock=lambda: START)
            with closing(LedgerService(ledger, proofs=proofs)) as service:
                yield service

    return opening


@pytest.fixture
def service(opened: Callable[[], AbstractContextManager[LedgerService]]) -> Iterator[LedgerService]:
    with opened() as service:
        yield service


def test_request_for_what_is_held_is_kept_out_with_a_receipt_in_the_log(service: LedgerService) -> None:
    hold = instruction()
    service.instruct(hold.to_bytes())
    size = service.log_update(0)

    with pytest.raises(DeletionHeld, match="held: the legal hold 'case-1'") as held:
        service.submit(signed_request())

    assert not service.page().statuses
    block = verify_block(held.value.receipt, TRUST)
    assert (block.request_id, block.holds, block.time) == ("request-1", (hold.digest,), START)
    assert size is not None
    with pytest.raises(DeletionHeld):
        service.submit(signed_request())
    assert not service.page().statuses
    with pytest.raises(Exception, match=r"not trusted|no key"):
        verify_block(Block(block.request_id, block.request, START, block.holds).sign(STRANGER).to_bytes(), TRUST)


@pytest.mark.parametrize(
    ("about", "target", "kept_out"),
    [
        (records("a", "b"), records("b", "c"), True),
        (records("a", "b"), records("c"), False),
        (HELD, Subject(SECRET.reference("patient-18")), False),
        (HELD, Records(frozenset({HELD.reference})), False),
        (HELD, WholeSite(SITES[0]), False),
    ],
)
def test_gate_keeps_out_exactly_what_names_what_is_held(
    service: LedgerService, about: Records | Subject, target: Records | Subject | WholeSite, kept_out: bool
) -> None:
    service.instruct(instruction(about).to_bytes())

    if kept_out:
        with pytest.raises(DeletionHeld):
            service.submit(signed_request(target=target))
    assert kept_out or service.submit(signed_request(target=target)).sites


def test_request_that_was_entered_before_is_answered_again_as_it_was(service: LedgerService) -> None:
    before = service.submit(signed_request())
    service.instruct(instruction().to_bytes())

    assert service.submit(signed_request()) == before
    with pytest.raises(DeletionHeld):
        service.submit(signed_request("request-2"))


def test_what_was_asked_before_skips_no_check(service: LedgerService) -> None:
    service.submit(signed_request())

    for again in (
        replace(signed_request(), signature=b""),
        signed_request(key=STRANGER),
        signed_request(days=400),
        replace(signed_request(target=records("a")), signature=signed_request().signature),
        signed_request("request-2", key=STRANGER),
    ):
        with pytest.raises(NotAllowed):
            service.submit(again)
    assert [status.request.request_id for status in service.page().statuses] == ["request-1"]


def test_ledger_that_goes_back_to_a_copy_has_lost_no_hold_and_no_release(
    opened: Callable[[], AbstractContextManager[LedgerService]],
) -> None:
    first, second = instruction(), instruction(records("a"), "case-2")
    with opened() as service:
        service.instruct(first.to_bytes())
        with service.ledger.engine.connect() as connection:
            copied = [dict(row._mapping) for row in connection.execute(select(InstructionRow.__table__))]
        service.instruct(second.to_bytes())
        service.instruct(instruction(first.digest, "over", "end", minutes=1).to_bytes())
        with service.ledger.engine.execution_options(write=True).connect() as connection, connection.begin():
            connection.execute(delete(InstructionRow))
            connection.execute(insert(InstructionRow), copied)
        # Before anybody notices.
        assert service.ledger.standing().in_force(InstructionKind.HOLD) == (first,)
        assert service.ledger.recover_instructions() == 2

        assert service.ledger.standing().in_force(InstructionKind.HOLD) == (second,)
        assert service.submit(signed_request()).sites
        with service.ledger.engine.execution_options(write=True).connect() as connection, connection.begin():
            connection.execute(delete(InstructionRow))
    with opened() as service:
        with pytest.raises(DeletionHeld):
            service.submit(signed_request("request-2", records("a")))
        assert service.ledger.recover_instructions() == 0


def test_journal_that_was_lost_is_made_again_and_a_damaged_one_stops_the_ledger(
    opened: Callable[[], AbstractContextManager[LedgerService]], tmp_path: Path
) -> None:
    with opened() as service:
        service.instruct(instruction().to_bytes())
    journal = tmp_path / FILE_NAME
    whole = journal.read_bytes()
    journal.unlink()
    with opened():
        assert journal.read_bytes() == whole
    journal.write_bytes(whole + whole[: len(whole) // 2])
    with opened() as service:
        assert len(service.ledger.standing().known) == 1
        service.instruct(instruction(records("a"), "case-2").to_bytes())
        assert journal.read_bytes().count(b"\n") == 2
    journal.write_bytes(whole.replace(b"payload", b"payl0ad"))
    with pytest.raises(InvalidSetting, match="so it is not known what is held"), opened():
        pass
    assert journal.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (instruction(key=STRANGER), "not trusted"),
        (instruction(key=LOG), "not trusted"),
        (instruction(minutes=10), "dated in the future"),
        (instruction(minutes=-8 * 24 * 60), "more than 7 days ago"),
        (instruction(bytes(32), "over", "end"), "ends one that is not known"),
    ],
)
def test_instruction_of_whom_nobody_trusts_or_of_another_time_is_refused(
    service: LedgerService, given: Instruction, fault: str
) -> None:
    with pytest.raises(NotAllowed, match=fault):
        service.instruct(given.to_bytes())
    assert not service.instructions()


def test_end_of_one_hold_ends_no_other_and_is_good_once(service: LedgerService) -> None:
    first, again = instruction(), instruction(name="case-2", minutes=1)
    over = instruction(first.digest, "over", "end", minutes=1)
    for one in (first, over):
        service.instruct(one.to_bytes())
    service.instruct(again.to_bytes())
    service.instruct(over.to_bytes())

    assert service.ledger.standing().in_force(InstructionKind.HOLD) == (again,)
    with pytest.raises(NotAllowed, match="was ended before"):
        service.instruct(instruction(first.digest, "over-again", "end", minutes=2).to_bytes())
    # What was ended comes back by no copy of it.
    service.instruct(first.to_bytes())
    assert service.ledger.standing().in_force(InstructionKind.HOLD) == (again,)


def test_altered_instruction_is_none(service: LedgerService) -> None:
    document = instruction(records("a")).to_bytes()
    for changed in (
        document.replace(SECRET.reference("a").hex().encode(), bytes(32).hex().encode()),
        document[:-1],
        b"{}",
        document.replace(b'"references":[', b'"references":["00",'),
    ):
        with pytest.raises(NotAllowed):
            service.instruct(changed)
    service.instruct(document)
    with pytest.raises(DeletionExists, match="'case-1' stands for another"):
        service.instruct(instruction(records("b")).to_bytes())


def test_all_are_told_in_order_and_from_the_first_where_the_ledger_is_another(service: LedgerService) -> None:
    given = [instruction(records(f"record-{number}"), f"case-{number}") for number in range(5)]
    for one in given:
        service.instruct(one.to_bytes())

    (number, _), *_ = service.instructions()[2:3]
    told = [Instruction.parse(document) for _, document in service.instructions(number, given[2].digest)]
    assert told == given[3:]
    assert len(service.instructions(number, given[1].digest)) == 5
    assert len(service.instructions(999, given[1].digest)) == 5


def test_hold_and_request_that_come_at_once_are_one_before_the_other(service: LedgerService) -> None:
    names = [f"patient-{number}" for number in range(20)]

    def both(name: str) -> bool:
        """Place a hold and ask for the same at the same time; return whether the request was entered."""
        about = Subject(SECRET.reference(name))
        with ThreadPoolExecutor(2) as pool:
            placed = pool.submit(service.instruct, instruction(about, f"case-{name}").to_bytes())
            asked = pool.submit(service.submit, signed_request(f"request-{name}", about))
            placed.result()
            return asked.exception() is None

    entered = [name for name in names if both(name)]

    assert {status.request.request_id for status in service.page().statuses} == {f"request-{name}" for name in entered}
    for name in names:
        with pytest.raises(DeletionHeld):
            service.submit(signed_request(f"again-{name}", Subject(SECRET.reference(name))))
    assert read_envelope(signed_request().signature)
