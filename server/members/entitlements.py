"""What each role may do at the deletion service, and about whom: the least that its commands need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedmunkey.common.deletions.words import OFFICER, requester_of
from fedmunkey.common.identities.member_names import MemberRole
from fedmunkey.common.proofs.duties import Duty, duty_words
from fedmunkey.server.members.turned_away import Cause, Refusal

Addressed = Callable[[str, str], tuple[str, bool] | None]
"""Takes a request id and a site; returns who asked and whether the site is addressed, None for no such request."""


@dataclass(frozen=True)
class Caller:
    """Whom a certificate names."""

    role: MemberRole
    name: str


def reads_ledger(method: str) -> bool:
    """Return whether `may_call` has to look up who is addressed by a request."""
    return method in ("Get", "History", "GetCertificate")


def may_call(method: str, message: Any, caller: Caller, addressed: Addressed) -> Refusal | None:
    """Return why a caller may not make a call, or None if it may.

    | call | coordinator | site | officer |
    | --- | --- | --- | --- |
    | Submit | no | as itself | as the officer |
    | Watch, Acknowledge, AcknowledgeAll | no | for itself | no |
    | Get, History, GetCertificate | yes | of its own, and of those that address it | of the officer's |
    | List, OpenRound, NoteRelease, NoteGivenOut, GetRenewal | yes | no | no |
    | Find, Follow, ListSites, GetOverview | yes | its own, and what addresses it | the officer's, and all sites |
    | Instruct | no | no | yes |
    | GetInstructions | yes | yes | yes |
    | Recall | no | for itself | no |
    | GetRecalled | yes | its own | yes |
    | GetLogHead, GetCards | yes | yes | yes |
    | Rotate | no | yes | yes |

    A method that is not in the table is refused. Of those who may ask, some only look: `may_ask`.
    """
    if caller.role not in ROLES.get(method, ()):
        return Refusal(Cause.ROLE, f"{caller.role}s may not call {method}; {_words(method)}")
    match method:
        case "Submit":
            return _check_requester(message.request.requester, caller)
        case "Watch":
            return _check_site([message.site], caller, "follow the orders of")
        case "Acknowledge":
            return _check_site([message.acknowledgement.site], caller, "answer for")
        case "AcknowledgeAll":
            return _check_site([answer.site for answer in message.acknowledgements], caller, "answer for")
        case "Find" | "Follow" | "ListSites" | "GetOverview":
            return _check_reads_as(message.reader, caller)
        case "Recall":
            return _check_site([message.site], caller, "give back receipts of")
        case "GetRecalled" if caller.role is MemberRole.SITE:
            return _check_site([message.site], caller, "read the receipts of")
        case _ if reads_ledger(method):
            return _check_reader(message.request_id, caller, addressed)
    return None


def may_ask(method: str, caller: Caller, duties: Callable[[str], frozenset[Duty]]) -> Refusal | None:
    """Return why a caller may not ask for anything, by the duties of its name, or None if it may or does not ask."""
    if method not in ASKING or (may := duties(caller.name)) & {Duty.FILE, Duty.APPROVE}:
        return None
    return Refusal(
        Cause.DUTY,
        f"{caller.role} {caller.name} may only {duty_words(may)} and asks for nothing; munkey-server allow, typed at "
        "the coordinator, lets it",
    )


ROLES: dict[str, tuple[MemberRole, ...]] = {
    "Submit": (MemberRole.SITE, MemberRole.OFFICER),
    "Watch": (MemberRole.SITE,),
    "Acknowledge": (MemberRole.SITE,),
    "AcknowledgeAll": (MemberRole.SITE,),
    "Get": tuple(MemberRole),
    "History": tuple(MemberRole),
    "Instruct": (MemberRole.OFFICER,),
    "GetInstructions": tuple(MemberRole),
    "Find": tuple(MemberRole),
    "Follow": tuple(MemberRole),
    "ListSites": tuple(MemberRole),
    "GetOverview": tuple(MemberRole),
    "Recall": (MemberRole.SITE,),
    "GetRecalled": tuple(MemberRole),
    "List": (MemberRole.COORDINATOR,),
    "OpenRound": (MemberRole.COORDINATOR,),
    "NoteRelease": (MemberRole.COORDINATOR,),
    "NoteGivenOut": (MemberRole.COORDINATOR,),
    "GetRenewal": (MemberRole.COORDINATOR,),
    "GetLogHead": tuple(MemberRole),
    "GetCards": tuple(MemberRole),
    "GetCertificate": tuple(MemberRole),
    "Rotate": (MemberRole.SITE, MemberRole.OFFICER),
}


ASKING = frozenset({"Submit", "Instruct"})
"""Calls by which something is asked for."""


def _words(method: str) -> str:
    allowed = ROLES.get(method, ())
    return f"only {' and '.join(f'{role}s' for role in allowed)} may" if allowed else "nobody may"


def _check_requester(named: str, caller: Caller) -> Refusal | None:
    if _is_own(named, caller):
        return None
    own = caller.name if caller.role is MemberRole.SITE else OFFICER
    return Refusal(
        Cause.NAME, f"{caller.role} {caller.name} may not ask in another's name; it asks as {own}, or not at all"
    )


def _check_reads_as(reader: str, caller: Caller) -> Refusal | None:
    if caller.role is MemberRole.COORDINATOR or (reader and _is_own(reader, caller)):
        return None
    whom = repr(reader) if reader else "the coordinator"
    return Refusal(Cause.NAME, f"{caller.role} {caller.name} may not read what {whom} may; show that member's identity")


def _is_own(requester: str, caller: Caller) -> bool:
    own = caller.name if caller.role is MemberRole.SITE else OFFICER
    return requester_of(requester) == own


def _check_site(named: list[str], caller: Caller, what: str) -> Refusal | None:
    if all(site == caller.name for site in named):
        return None
    return Refusal(Cause.NAME, f"site {caller.name} may not {what} another site; show that site's identity")


def _check_reader(request_id: str, caller: Caller, addressed: Addressed) -> Refusal | None:
    if caller.role is MemberRole.COORDINATOR:
        return None
    # What is not there is for the service to say.
    if (found := addressed(request_id, caller.name)) is None:
        return None
    requester, concerns = found
    if _is_own(requester, caller) or (concerns and caller.role is MemberRole.SITE):
        return None
    return Refusal(
        Cause.NAME,
        f"{caller.role} {caller.name} neither asked for this request nor is addressed by it; "
        "who asked, and the coordinator, can look it up",
    )
