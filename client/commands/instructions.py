"""`munkey-client hold` and `opt-out`: what must not be erased, and what must not be learned from."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fedmunkey.client.commands.named_ids import (
    RecordOption,
    RecordsFileOption,
    SubjectFileOption,
    SubjectOption,
    read_records,
    read_subject,
)
from fedmunkey.client.commands.options import DEFAULT_SERVICE, IdentityOption, JsonOption, ServiceOption
from fedmunkey.client.deletions.instructing import end, entered_requests, give, read_standing
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import Records, Subject
from fedmunkey.common.errors import InvalidDeletion, count_of
from fedmunkey.common.identities import Identity
from fedmunkey.common.programs import command_line
from fedmunkey.common.proofs.governance.instructions import Instruction, InstructionKind
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import write_time
from fedmunkey.common.service.channel import DeletionChannel

_KeyOption = Annotated[Path, typer.Option("--signing-key", help="The officer's key.")]
_SecretOption = Annotated[Path, typer.Option(help="The federation secret, which makes references of ids.")]
_NameOption = Annotated[
    str | None, typer.Option("--id", help="What it is called, a random id by default; no patient's name.")
]
_NamedArgument = Annotated[str, typer.Argument(metavar="ID", help="What it is called.", show_default=False)]

_WORDS = {
    InstructionKind.HOLD: (
        "hold",
        "a legal hold: what it names is erased nowhere until it is released",
        "place",
        "release",
    ),
    InstructionKind.OPT_OUT: (
        "opt-out",
        "an opt-out: what it names is learned from, enrolled and exported nowhere",
        "add",
        "end",
    ),
}


def _given(kind: InstructionKind) -> Callable[..., None]:
    @faults_explained()
    def given(
        key: _KeyOption,
        secret: _SecretOption,
        record: RecordOption = None,
        records_file: RecordsFileOption = None,
        subject: SubjectOption = None,
        subject_file: SubjectFileOption = None,
        name: _NameOption = None,
        service: ServiceOption = DEFAULT_SERVICE,
        identity: IdentityOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Give an instruction of one kind."""
        about = _about(FederationSecret.read(secret), record, records_file, subject, subject_file)
        federation = FederationSecret.read(secret).federation_id
        with _channel(service, identity) as channel:
            made = give(channel, kind, name or str(uuid.uuid4()), about, SigningKey.read(key), federation)
            standing = entered_requests(channel, about) if kind is InstructionKind.HOLD else ()
        word = f"{kind} {made.instruction_id} is in force: {count_of(len(made.references), 'reference')}"
        documents = [{"request_id": one.request_id, "state": one.state.value} for one in standing]
        lines = [
            f"request {one.request_id} was entered before and names it, {one.state}: sites that have not answered "
            "it yet refuse it, and what they have erased stays erased"
            for one in standing
        ]
        command_line.show({**_document(made), "requests": documents}, as_json, word, *lines)

    return given


def _ended(kind: InstructionKind) -> Callable[..., None]:
    @faults_explained()
    def ended(
        named: _NamedArgument,
        key: _KeyOption,
        service: ServiceOption = DEFAULT_SERVICE,
        identity: IdentityOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """End an instruction of one kind."""
        with _channel(service, identity) as channel:
            over = end(channel, kind, named, SigningKey.read(key))
        command_line.show(
            {**_document(over), "in_force": False}, as_json, f"{kind} {over.instruction_id} is in force no more"
        )

    return ended


def _listed(kind: InstructionKind) -> Callable[..., None]:
    @faults_explained()
    def listed(
        service: ServiceOption = DEFAULT_SERVICE, identity: IdentityOption = None, as_json: JsonOption = False
    ) -> None:
        """List the instructions of one kind."""
        with _channel(service, identity) as channel:
            standing = read_standing(channel)
        found = [one for one in standing.known.values() if one.kind is kind]
        documents = [{**_document(one), "in_force": one.digest not in standing.ended} for one in found]
        command_line.show(documents, as_json, _table(documents))

    return listed


place_hold, release_hold, list_holds = (make(InstructionKind.HOLD) for make in (_given, _ended, _listed))
add_opt_out, end_opt_out, list_opt_outs = (make(InstructionKind.OPT_OUT) for make in (_given, _ended, _listed))

place_hold.__doc__ = """Place a legal hold: what it names is erased nowhere until it is released.

    A request for exactly what it names is turned away by the coordinator, which signs a receipt of that; an order that
    would erase any of it is refused by the site, which knows whose each record is. Whoever may file may place one.

    Example: munkey-client hold place --subject - --signing-key officer.pem --secret federation.secret
    --identity officer --service coordinator.example.org:9440
    """
release_hold.__doc__ = """Release a legal hold: who may approve can.

    Where several officers must agree, it is another one than placed it.

    Example: munkey-client hold release ID --signing-key second.pem --identity second
    --service coordinator.example.org:9440
    """
list_holds.__doc__ = """List the legal holds, and those that were released; they name nobody.

    Example: munkey-client hold list --identity officer --service coordinator.example.org:9440 --json
    """
add_opt_out.__doc__ = """Put records or a patient on the opt-out list: no round, import or export of any site uses them.

    They stay where they are and can be erased as before. Weights that have learned from them are renewed by the next
    round under exact; under certified and empirical that does not reach what was learned before.

    Example: munkey-client opt-out add --subject - --signing-key officer.pem --secret federation.secret
    --identity officer --service coordinator.example.org:9440
    """
end_opt_out.__doc__ = """Take something off the opt-out list again; who may approve can.

    Example: munkey-client opt-out end ID --signing-key second.pem --identity second
    --service coordinator.example.org:9440
    """
list_opt_outs.__doc__ = """List the opt-outs, and those that were ended; they name nobody.

    Example: munkey-client opt-out list --identity officer --service coordinator.example.org:9440 --json
    """


def _about(
    secret: FederationSecret,
    record: list[str] | None,
    records_file: Path | None,
    subject: str | None,
    subject_file: Path | None,
) -> Records | Subject:
    """Return what options name, as references; raises `InvalidDeletion` unless records or a patient are named."""
    records, patient = read_records(record, records_file), read_subject(subject, subject_file)
    if bool(records) == bool(patient):
        raise InvalidDeletion("say what it is about by --record or --records-file, or by --subject or --subject-file")
    if patient:
        return Subject(secret.reference(patient))
    return Records(frozenset(map(secret.reference, records or ())))


def _channel(service: str, identity: Path | None) -> DeletionChannel:
    return DeletionChannel(service, identity=None if identity is None else Identity.read(identity))


def _document(one: Instruction) -> dict[str, Any]:
    return {
        "id": one.instruction_id,
        "kind": one.kind.value,
        "digest": one.digest.hex(),
        "issued": write_time(one.issued),
        "about": "subject" if isinstance(one.target, Subject) else "records",
        "references": len(one.references),
        "signed_by": [signature.key_id for signature in one.envelope.signatures],
        "in_force": True,
    }


def _table(documents: Sequence[dict[str, Any]]) -> Any:
    table = command_line.plain_table("id", "state", "about", "issued", "signed by", numbers=("references",))
    for one in documents:
        state = "in force" if one["in_force"] else "ended"
        signed = ", ".join(key_id[:16] for key_id in one["signed_by"])
        table.add_row(one["id"], state, one["about"], one["issued"], signed, str(one["references"]))
    return table
