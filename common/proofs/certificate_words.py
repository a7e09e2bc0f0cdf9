"""What a verified certificate proves and what it does not, in sentences and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fedmunkey.common.deletions.status_words import erased_words
from fedmunkey.common.deletions.words import Outcome, SiteState
from fedmunkey.common.errors import count_of
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signing.statements import write_time
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.common.proofs.verification import Verified

_TITLES = {
    Outcome.ERASED: "Certificate of deletion",
    Outcome.NOTHING_HELD: "Certificate that nothing was held",
    Outcome.PARTIAL: "Certificate of a request that was not carried out everywhere",
    Outcome.REFUSED: "Certificate of a refusal",
}
_INCOMPLETE = "Incomplete certificate of a request: a receipt is missing"


def headline(verified: Verified) -> str:
    """Return in one sentence what was erased, and where nothing was."""
    said = f"The certificate holds. {missing_words(verified)}{erased_words(verified.erased)}"
    if verified.outcome is Outcome.ERASED:
        return f"{said}; every site that was asked has answered, and none refused."
    if verified.outcome is Outcome.NOTHING_HELD:
        unsure = "; whether they did before is left open" * bool(_unsure(verified))
        return f"{said}: no site that was asked holds anything of what was named{unsure}."
    if verified.outcome is Outcome.REFUSED:
        return f"{said}: every site that was asked refused."
    why = [f"{site} refused" for site in _refusing(verified)]
    why += [f"the receipt of {site} counts for nothing, its key has ended" for site in verified.undated]
    said += ", NOT EVERYWHERE" * bool(verified.erased)
    return f"{said}{': ' * bool(why)}{'; '.join(why)}."


def missing_words(verified: Verified) -> str:
    """Return that receipts of addressed sites are missing, as a sentence with a space behind; empty if none is."""
    if not verified.silent:
        return ""
    one = len(verified.silent) == 1
    what = "receipt" if one else "receipts"
    return f"INCOMPLETE: the {what} of {', '.join(verified.silent)} {'is' if one else 'are'} missing. "


def proved(verified: Verified) -> list[str]:
    """Return what the certificate proves to somebody who trusts the keys, one sentence each."""
    terms, head = verified.terms, verified.head
    lines = [
        f"{_holders(verified.requested_by)} asked on {write_time(terms.issued)} for {asked_for(verified)} to be "
        f"forgotten (request {terms.request_id})."
    ]
    for receipt, key in zip(verified.receipts, verified.signed_by, strict=True):
        if verified.counts(receipt):
            lines.append(f"{_answered(receipt)} It was signed with key {key.key.key_id[:16]}.")
    lines.append(
        f"The request and every receipt stand in the coordinator's log of {count_of(head.size, 'leaf', 'leaves')}, "
        f"whose head was signed on {write_time(head.time)}."
    )
    if renewal := verified.renewal:
        lines.append(
            f"The shared weights were solved for anew (release {renewal.release[:16]}): {', '.join(renewal.sites)} "
            f"signed, until {write_time(renewal.time)}, that they took part after erasing. "
            f"{count_of(renewal.changed, 'record')} of the federation had changed since the release before."
        )
    lines += [
        f"{receipt.answer.site} states that {count_of(receipt.rectified, 'record')} of what it erased were enrolled "
        "anew, corrected, under the same ids."
        for receipt in verified.counted
        if receipt.rectified
    ]
    lines += [
        f"{receipt.answer.site} names {count_of(len(receipt.exported), 'model')} that it had given away and that must "
        f"be replaced: SHA-256 {', '.join(receipt.exported)}."
        for receipt in verified.counted
        if receipt.exported
    ]
    if verified.silent:
        answered = len(verified.receipts)
        lines.append(
            f"The log says that the request was sent to {answered + len(verified.silent)} sites; {answered} receipts "
            f"are here. The request was also sent to {', '.join(verified.silent)}, of which there is no receipt."
        )
    for said, keys in zip(verified.restored, verified.restored_by, strict=True):
        lines.append(f"The log was {said.words}. {_holders(keys)} signed that.")
    witnesses = [receipt.answer.site for receipt in verified.receipts if receipt.witnessed]
    if seen := [site for site in witnesses if site not in verified.lost]:
        lines.append(f"That log extends what {', '.join(seen)} had seen of it before answering.")
    return lines


def not_proved(verified: Verified, keys: TrustedKeys) -> list[str]:
    """Return what the certificate leaves open, one sentence each."""
    lines = [
        "Whether a site told the truth: a receipt is its signed word, which nobody outside can check.",
        "Copies outside of the sites' key stores, such as the original images and backups.",
        "Which patient or records were meant: the certificate holds a digest only. With the federation secret, "
        "munkey-client verify --secret FILE --subject - (or --record -) compares it with an id.",
        "Whether the coordinator shows the same log to everybody: compare the head with the one that a site has seen "
        "(munkey-client status).",
        "The times: each is its signer's own clock, but a receipt of a key that has ended was in the log before that.",
    ]
    lines += _left_in_weights(verified)
    refused = _refusing(verified)
    if refused:
        lines.append(f"Any deletion at {', '.join(refused)}: what was refused is still there.")
    if unsure := _unsure(verified):
        lines.append(f"Whether {', '.join(unsure)} held what was named in an earlier key store, which is gone.")
    if verified.silent:
        lines.append(
            f"Any deletion at {', '.join(verified.silent)}: a site that left gives no receipt, and whoever handed this "
            "certificate on may have taken one out."
        )
    if verified.lost:
        lines.append(
            f"What the log held when {', '.join(verified.lost)} signed: that part was lost when it was restored from a "
            "copy. The site has kept the head that its receipt names."
        )
    for receipt, key in zip(verified.receipts, verified.signed_by, strict=True):
        if not verified.counts(receipt) and key.end is not None:
            site, ended = receipt.answer.site, write_time(key.end)
            lines.append(
                f"Anything that {site} states: its key {key.key.key_id[:16]} ended on {ended}, and no signed head of "
                "the log from before that holds its receipt, so whoever has the key may have dated it back. Ask the "
                "coordinator for the certificate again: it may have an earlier head."
            )
    answered = {*verified.silent, *(receipt.answer.site for receipt in verified.receipts)}
    if missing := sorted({key.name for key in keys.of(Role.SITE)} - answered):
        lines.append(f"Anything about {', '.join(missing)}: the request was not sent there.")
    return lines


def _left_in_weights(verified: Verified) -> list[str]:
    """Return what is left open about the shared weights, one sentence each."""
    lines: list[str] = []
    refused = _refusing(verified)
    given = [receipt.answer.guarantee for receipt in verified.counted if receipt.answer.site not in refused]
    weakest = Guarantee.weakest(given) if given else None
    if weakest is Guarantee.EMPIRICAL:
        lines.append("What the shared weights still know of the records: it is measured by audits, not bounded.")
    elif weakest is Guarantee.CERTIFIED:
        lines.append("That nothing of the records is left in the shared weights: at most what epsilon and delta allow.")
    if any(receipt.answer.entries for receipt in verified.receipts):
        lines.append("Models that sites gave away and did not note: a receipt names those in the site's register.")
    if weakest is Guarantee.EXACT and any(receipt.answer.entries for receipt in verified.receipts):
        if verified.renewal is None:
            lines.append(
                "That the shared weights are renewed: this certificate shows no release without the records. Where "
                "they had a part in the weights, ask for the certificate again once they are renewed."
            )
        else:
            lines.append("That nobody kept a copy of earlier weights: what was in them then is in the copy still.")
    return lines


def asked_for(verified: Verified) -> str:
    """Return what was asked for, in words."""
    terms = verified.terms
    where = f" at {terms.site}" if terms.site else ""
    if terms.kind == "records":
        return f"{count_of(terms.count, 'record')}{where}"
    return "one subject" if terms.kind == "subject" else f"everything{where}"


def guarantee(verified: Verified) -> Guarantee | None:
    """Return what may be claimed for all sites together; None unless it is a certificate of deletion."""
    if verified.outcome is not Outcome.ERASED:
        return None
    return Guarantee.weakest(receipt.answer.guarantee for receipt in verified.counted)


def document(verified: Verified, keys: TrustedKeys) -> dict[str, Any]:
    """Return the same as JSON-ready data; an epsilon of None is no bound."""
    terms, claimed = verified.terms, guarantee(verified)
    return {
        "request_id": terms.request_id,
        "requester": terms.requester,
        "requester_keys": [key.key.key_id for key in verified.requested_by],
        "federation": terms.federation,
        "target": {"kind": terms.kind, "site": terms.site, "count": terms.count, "digest": terms.target.hex()},
        "issued": write_time(terms.issued),
        "title": _INCOMPLETE if verified.silent else _TITLES[verified.outcome],
        "headline": headline(verified),
        "outcome": verified.outcome.word,
        "records": verified.erased,
        "guarantee": claimed.value if claimed else None,
        "sites": [
            _receipt_document(receipt, key) for receipt, key in zip(verified.receipts, verified.signed_by, strict=True)
        ],
        "addressed": sorted([*verified.silent, *(receipt.answer.site for receipt in verified.receipts)]),
        "silent": list(verified.silent),
        "lost_heads": list(verified.lost),
        "renewal": _renewal_document(verified),
        "undated": list(verified.undated),
        "log": {
            "size": verified.head.size,
            "root": verified.head.root.hex(),
            "time": write_time(verified.head.time),
        },
        "proved": proved(verified),
        "not_proved": not_proved(verified, keys),
    }


def _renewal_document(verified: Verified) -> dict[str, Any] | None:
    renewal = verified.renewal
    if renewal is None:
        return None
    return {"release": renewal.release, "sites": list(renewal.sites), "time": write_time(renewal.time)}


def _receipt_document(receipt: Receipt, key: TrustedKey) -> dict[str, Any]:
    answer = receipt.answer
    losses = {}
    for name, loss in (("record_loss", answer.record_loss), ("subject_loss", answer.subject_loss)):
        epsilon = loss.epsilon if loss and math.isfinite(loss.epsilon) else None
        losses[name] = {"epsilon": epsilon, "delta": loss.delta, "records": loss.records} if loss else None
    return {
        "site": answer.site,
        "state": answer.state.value,
        "records": answer.records,
        "entries": answer.entries,
        "guarantee": answer.guarantee.value,
        **losses,
        "reason": answer.reason,
        "rectified": receipt.rectified,
        "exported": [{"digest": digest, "must_be_replaced": True} for digest in receipt.exported],
        "time": write_time(receipt.time),
        "key": key.key.key_id,
    }


def _answered(receipt: Receipt) -> str:
    answer = receipt.answer
    begin = f"{answer.site} states, on {write_time(receipt.time)},"
    if answer.state is SiteState.REFUSED:
        return f"{begin} that it refused and deleted nothing: {answer.reason}."
    if not answer.records:
        why = f": {answer.reason}" if answer.reason else ""
        return f"{begin} that it holds nothing of what was named{why}."
    erased = f"{count_of(answer.records, 'record')}, {count_of(answer.entries, 'entry', 'entries')} of its memory bank"
    words = f"{begin} that it erased {erased}, with the guarantee {answer.guarantee}: {answer.guarantee.remains}"
    if answer.record_loss and answer.subject_loss:
        one, all_ = answer.record_loss, answer.subject_loss
        words += (
            f"; epsilon {_epsilon(one.epsilon)} for a record, {_epsilon(all_.epsilon)} for "
            f"{count_of(all_.records, 'record')} of one subject, delta {one.delta:g}"
        )
    return f"{words}."


def _unsure(verified: Verified) -> list[str]:
    """Return the sites that hold nothing and cannot tell whether they did."""
    answers = [receipt.answer for receipt in verified.counted]
    return [answer.site for answer in answers if answer.state is SiteState.NOTHING_HELD and answer.reason]


def _refusing(verified: Verified) -> list[str]:
    return [receipt.answer.site for receipt in verified.counted if receipt.answer.state is SiteState.REFUSED]


def _holders(keys: Sequence[TrustedKey]) -> str:
    roles = {Role.OFFICER: "The data-protection officer", Role.SITE: "The site", Role.LOG: "The log"}
    return " and ".join(f"{roles[key.role]} ({key.name}, key {key.key.key_id[:16]})" for key in keys)


def _epsilon(epsilon: float) -> str:
    # Rounded up: a bound must not look smaller than it is.
    return f"{math.ceil(epsilon * 100) / 100:.2f}" if math.isfinite(epsilon) else "without bound"
