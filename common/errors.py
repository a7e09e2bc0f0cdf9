"""The exceptions that fedmunkey raises on purpose.

    FedmunkeyError
    ├── InvalidInput              a value that a person gave cannot be used
    │   ├── InvalidSetting
    │   │   └── NotInstalled    what it needs comes with an extra of the package
    │   ├── CardMismatch          what somebody has is not what the members have agreed on
    │   ├── InvalidDataset
    │   ├── InvalidWeights
    │   ├── InvalidDeletion
    │   │   ├── IllegalMove     a deletion's state cannot follow the one before
    │   │   ├── NotAllowed      the requester may not ask for this
    │   │   │   └── DeletionHeld   a legal hold is on what was asked for
    │   │   ├── RefusedContributions   sites' parts in a release are not what they should be
    │   │   ├── UnknownDeletion there is no such request, order or site
    │   │   └── DeletionConflict   the ledger says otherwise already
    │   │       └── DeletionExists   the request id stands for another request
    │   ├── InvalidProof          a key, signature, receipt, log or certificate does not hold
    │   └── InvalidIdentity       a member's key, certificate or invitation cannot be used
    ├── KeyStoreError             a site's key store cannot be used as it is
    │   └── BankChanged           entries were deleted while a step was under way
    ├── PrivacyBudgetSpent        a site may not train further without breaking what it has promised
    ├── ServiceUnavailable        the deletion service did not answer in time
    ├── ProcessNotStarted         a process of a deployment could not be started
    └── FederationStopped         training cannot go on

Every message is one line that names the value and the way out, and holds no patient's id. Command lines print it and
exit with `EXIT_CODE`. What foreign libraries raise becomes one of them in `common.service.call_errors` (gRPC),
`common.settings.settings_text.explain` (pydantic), `client.key_store.disk_errors` (SQLite and the disk),
`common.service.wire.writing` (protobuf) and where the ledger's database is used (SQLAlchemy).
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

EXIT_CODE = 2


class FedmunkeyError(Exception):
    """Base of all errors whose message is meant for the person at the keyboard."""


class InvalidInput(FedmunkeyError):  # noqa: N818
    """A value that a person gave cannot be used."""


class InvalidSetting(InvalidInput):
    """A setting is unknown, of the wrong type or out of range."""


class NotInstalled(InvalidSetting):
    """What is wanted is not in this installation, as it comes with an extra: `pip install 'fedmunkey[EXTRA]'`."""

    def __init__(self, extra: str, wanted: str) -> None:
        super().__init__(f"{wanted} is not installed here; `pip install 'fedmunkey[{extra}]'`")


@contextmanager
def brought_by(extra: str, wanted: str) -> Iterator[None]:
    """Import in the context what an extra brings; raises `NotInstalled`, naming what is wanted, without it."""
    try:
        yield
    except ImportError:
        raise NotInstalled(extra, wanted) from None


class CardMismatch(InvalidInput):
    """Settings, records or a member's card differ from the federation card; the message names each field."""


class InvalidDataset(InvalidInput):
    """A data set is unknown, unreadable or does not fit together."""


class InvalidWeights(InvalidInput):
    """A weights file cannot be read or belongs to another model."""


class InvalidDeletion(InvalidInput):
    """A deletion request or a plan of deletions cannot be carried out as written."""


class IllegalMove(InvalidDeletion):
    """A deletion cannot go from the state that it is in to the one that was asked for."""


class NotAllowed(InvalidDeletion):
    """The requester may not ask for this."""


class DeletionHeld(NotAllowed):
    """A legal hold is on what a request names, so it was not entered.

    `holds` has the digests of the holds, `names` what they are called; `receipt` is the envelope that the coordinator
    has signed about it, empty where it keeps no log.
    """

    def __init__(self, holds: tuple[bytes, ...], names: Collection[str] = (), receipt: bytes = b"") -> None:
        said = ", ".join(repr(name) for name in names) or ", ".join(digest.hex()[:16] for digest in holds)
        super().__init__(
            f"held: the legal hold {said} is on what was asked for, so nothing was entered and nothing is erased; ask "
            "again once it is released (munkey-client hold release)"
        )
        self.holds = holds
        self.names = tuple(names)
        self.receipt = receipt


class RefusedContributions(InvalidDeletion):
    """Sites' parts in a release are not what they should be, so it is not written down.

    `faults` has the reason by the site's name.
    """

    def __init__(self, faults: Mapping[str, str]) -> None:
        said = "; ".join(f"the contribution of site {site!r} is refused: {why}" for site, why in sorted(faults.items()))
        super().__init__(said)
        self.faults = dict(faults)


class UnknownDeletion(InvalidDeletion):
    """There is no such request, order or site."""


class DeletionConflict(InvalidDeletion):
    """The ledger says otherwise already."""


class DeletionExists(DeletionConflict):
    """The request id stands for another request."""


class InvalidProof(InvalidInput):
    """A key, a signature, a receipt, a log or a certificate does not prove what it should."""


class InvalidIdentity(InvalidInput):
    """A member's key, certificate or invitation is missing, damaged, out of date, revoked or another's."""


class KeyStoreError(FedmunkeyError):
    """A site's key store is missing, of another schema version or does not fit the data."""


class BankChanged(KeyStoreError):  # noqa: N818
    """Entries were deleted since the bank was loaded, so what was computed from it must not be kept."""


class PrivacyBudgetSpent(FedmunkeyError):  # noqa: N818
    """Another round of training would bring a record's privacy loss over what the site has promised its patients."""


class ServiceUnavailable(FedmunkeyError):  # noqa: N818
    """The deletion service could not be reached within the time that the caller was willing to wait."""


class ProcessNotStarted(FedmunkeyError):  # noqa: N818
    """A process of a deployment could not be started, for the reason that the message gives."""


class FederationStopped(FedmunkeyError):  # noqa: N818
    """Training cannot go on, for the reason that the message gives."""


def count_of(number: int, what: str, several: str = "") -> str:
    """Return a number of things in words, `1 site` or `2 sites`; `several` is what more than one is called."""
    return f"{number} {what if number == 1 else several or what + 's'}"
