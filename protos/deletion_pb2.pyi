import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SiteState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SITE_STATE_UNSPECIFIED: _ClassVar[SiteState]
    SITE_STATE_PENDING: _ClassVar[SiteState]
    SITE_STATE_ERASED: _ClassVar[SiteState]
    SITE_STATE_NOTHING_HELD: _ClassVar[SiteState]
    SITE_STATE_REFUSED: _ClassVar[SiteState]
    SITE_STATE_DELIVERED: _ClassVar[SiteState]
    SITE_STATE_LEFT: _ClassVar[SiteState]

class RequestState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REQUEST_STATE_UNSPECIFIED: _ClassVar[RequestState]
    REQUEST_STATE_RECEIVED: _ClassVar[RequestState]
    REQUEST_STATE_VERIFIED: _ClassVar[RequestState]
    REQUEST_STATE_DISPATCHED: _ClassVar[RequestState]
    REQUEST_STATE_COMPLETED: _ClassVar[RequestState]
    REQUEST_STATE_PARTIAL: _ClassVar[RequestState]
    REQUEST_STATE_REFUSED: _ClassVar[RequestState]
    REQUEST_STATE_OVERDUE: _ClassVar[RequestState]
    REQUEST_STATE_ERASED: _ClassVar[RequestState]
SITE_STATE_UNSPECIFIED: SiteState
SITE_STATE_PENDING: SiteState
SITE_STATE_ERASED: SiteState
SITE_STATE_NOTHING_HELD: SiteState
SITE_STATE_REFUSED: SiteState
SITE_STATE_DELIVERED: SiteState
SITE_STATE_LEFT: SiteState
REQUEST_STATE_UNSPECIFIED: RequestState
REQUEST_STATE_RECEIVED: RequestState
REQUEST_STATE_VERIFIED: RequestState
REQUEST_STATE_DISPATCHED: RequestState
REQUEST_STATE_COMPLETED: RequestState
REQUEST_STATE_PARTIAL: RequestState
REQUEST_STATE_REFUSED: RequestState
REQUEST_STATE_OVERDUE: RequestState
REQUEST_STATE_ERASED: RequestState

class Records(_message.Message):
    __slots__ = ("references", "site")
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    references: _containers.RepeatedScalarFieldContainer[bytes]
    site: str
    def __init__(self, references: _Optional[_Iterable[bytes]] = ..., site: _Optional[str] = ...) -> None: ...

class DeletionRequest(_message.Message):
    __slots__ = ("request_id", "requester", "records", "subject_reference", "site", "signature")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REQUESTER_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    requester: str
    records: Records
    subject_reference: bytes
    site: str
    signature: bytes
    def __init__(self, request_id: _Optional[str] = ..., requester: _Optional[str] = ..., records: _Optional[_Union[Records, _Mapping]] = ..., subject_reference: _Optional[bytes] = ..., site: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class DeletionOrder(_message.Message):
    __slots__ = ("number", "site", "request", "answer")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    number: int
    site: str
    request: DeletionRequest
    answer: Acknowledgement
    def __init__(self, number: _Optional[int] = ..., site: _Optional[str] = ..., request: _Optional[_Union[DeletionRequest, _Mapping]] = ..., answer: _Optional[_Union[Acknowledgement, _Mapping]] = ...) -> None: ...

class Acknowledgement(_message.Message):
    __slots__ = ("site", "document", "receipt")
    SITE_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    site: str
    document: str
    receipt: bytes
    def __init__(self, site: _Optional[str] = ..., document: _Optional[str] = ..., receipt: _Optional[bytes] = ...) -> None: ...

class SiteProgress(_message.Message):
    __slots__ = ("site", "number", "state", "acknowledgement", "acknowledged_at", "reason")
    SITE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGEMENT_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    site: str
    number: int
    state: SiteState
    acknowledgement: Acknowledgement
    acknowledged_at: _timestamp_pb2.Timestamp
    reason: str
    def __init__(self, site: _Optional[str] = ..., number: _Optional[int] = ..., state: _Optional[_Union[SiteState, str]] = ..., acknowledgement: _Optional[_Union[Acknowledgement, _Mapping]] = ..., acknowledged_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class RequestStatus(_message.Message):
    __slots__ = ("request", "submitted_at", "sites", "state", "due_at", "extension", "renew_by")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DUE_AT_FIELD_NUMBER: _ClassVar[int]
    EXTENSION_FIELD_NUMBER: _ClassVar[int]
    RENEW_BY_FIELD_NUMBER: _ClassVar[int]
    request: DeletionRequest
    submitted_at: _timestamp_pb2.Timestamp
    sites: _containers.RepeatedCompositeFieldContainer[SiteProgress]
    state: RequestState
    due_at: _timestamp_pb2.Timestamp
    extension: str
    renew_by: _timestamp_pb2.Timestamp
    def __init__(self, request: _Optional[_Union[DeletionRequest, _Mapping]] = ..., submitted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sites: _Optional[_Iterable[_Union[SiteProgress, _Mapping]]] = ..., state: _Optional[_Union[RequestState, str]] = ..., due_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., extension: _Optional[str] = ..., renew_by: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: DeletionRequest
    def __init__(self, request: _Optional[_Union[DeletionRequest, _Mapping]] = ...) -> None: ...

class SubmitResponse(_message.Message):
    __slots__ = ("status", "blocked", "holds", "hold_names")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    HOLD_NAMES_FIELD_NUMBER: _ClassVar[int]
    status: RequestStatus
    blocked: bytes
    holds: _containers.RepeatedScalarFieldContainer[bytes]
    hold_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, status: _Optional[_Union[RequestStatus, _Mapping]] = ..., blocked: _Optional[bytes] = ..., holds: _Optional[_Iterable[bytes]] = ..., hold_names: _Optional[_Iterable[str]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: RequestStatus
    def __init__(self, status: _Optional[_Union[RequestStatus, _Mapping]] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "late")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    late: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., late: bool = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("statuses", "next_page_token")
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    statuses: _containers.RepeatedCompositeFieldContainer[RequestStatus]
    next_page_token: str
    def __init__(self, statuses: _Optional[_Iterable[_Union[RequestStatus, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("site", "after", "follow", "chain")
    SITE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    site: str
    after: int
    follow: bool
    chain: bytes
    def __init__(self, site: _Optional[str] = ..., after: _Optional[int] = ..., follow: bool = ..., chain: _Optional[bytes] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("order",)
    ORDER_FIELD_NUMBER: _ClassVar[int]
    order: DeletionOrder
    def __init__(self, order: _Optional[_Union[DeletionOrder, _Mapping]] = ...) -> None: ...

class AcknowledgeRequest(_message.Message):
    __slots__ = ("acknowledgement",)
    ACKNOWLEDGEMENT_FIELD_NUMBER: _ClassVar[int]
    acknowledgement: Acknowledgement
    def __init__(self, acknowledgement: _Optional[_Union[Acknowledgement, _Mapping]] = ...) -> None: ...

class AcknowledgeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AcknowledgeAllRequest(_message.Message):
    __slots__ = ("acknowledgements",)
    ACKNOWLEDGEMENTS_FIELD_NUMBER: _ClassVar[int]
    acknowledgements: _containers.RepeatedCompositeFieldContainer[Acknowledgement]
    def __init__(self, acknowledgements: _Optional[_Iterable[_Union[Acknowledgement, _Mapping]]] = ...) -> None: ...

class AcknowledgeAllResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class Move(_message.Message):
    __slots__ = ("at", "site", "before", "after", "reason")
    AT_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    site: str
    before: str
    after: str
    reason: str
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., site: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ("moves",)
    MOVES_FIELD_NUMBER: _ClassVar[int]
    moves: _containers.RepeatedCompositeFieldContainer[Move]
    def __init__(self, moves: _Optional[_Iterable[_Union[Move, _Mapping]]] = ...) -> None: ...

class OpenRoundRequest(_message.Message):
    __slots__ = ("round",)
    ROUND_FIELD_NUMBER: _ClassVar[int]
    round: int
    def __init__(self, round: _Optional[int] = ...) -> None: ...

class OpenRoundResponse(_message.Message):
    __slots__ = ("pending_orders",)
    PENDING_ORDERS_FIELD_NUMBER: _ClassVar[int]
    pending_orders: int
    def __init__(self, pending_orders: _Optional[int] = ...) -> None: ...

class GetLogHeadRequest(_message.Message):
    __slots__ = ("seen_size", "leaves")
    SEEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    seen_size: int
    leaves: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, seen_size: _Optional[int] = ..., leaves: _Optional[_Iterable[bytes]] = ...) -> None: ...

class LogProof(_message.Message):
    __slots__ = ("included", "number", "path")
    INCLUDED_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    included: bool
    number: int
    path: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, included: bool = ..., number: _Optional[int] = ..., path: _Optional[_Iterable[bytes]] = ...) -> None: ...

class GetLogHeadResponse(_message.Message):
    __slots__ = ("head", "consistency", "inclusions", "restored")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    INCLUSIONS_FIELD_NUMBER: _ClassVar[int]
    RESTORED_FIELD_NUMBER: _ClassVar[int]
    head: bytes
    consistency: _containers.RepeatedScalarFieldContainer[bytes]
    inclusions: _containers.RepeatedCompositeFieldContainer[LogProof]
    restored: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, head: _Optional[bytes] = ..., consistency: _Optional[_Iterable[bytes]] = ..., inclusions: _Optional[_Iterable[_Union[LogProof, _Mapping]]] = ..., restored: _Optional[_Iterable[bytes]] = ...) -> None: ...

class GetCertificateRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class GetCertificateResponse(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...

class RecallRequest(_message.Message):
    __slots__ = ("site", "receipts")
    SITE_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    site: str
    receipts: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, site: _Optional[str] = ..., receipts: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RecallResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetRecalledRequest(_message.Message):
    __slots__ = ("request_id", "site")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    site: str
    def __init__(self, request_id: _Optional[str] = ..., site: _Optional[str] = ...) -> None: ...

class GetRecalledResponse(_message.Message):
    __slots__ = ("receipts",)
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    receipts: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, receipts: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SiteContribution(_message.Message):
    __slots__ = ("site", "last_order", "statement")
    SITE_FIELD_NUMBER: _ClassVar[int]
    LAST_ORDER_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    site: str
    last_order: int
    statement: bytes
    def __init__(self, site: _Optional[str] = ..., last_order: _Optional[int] = ..., statement: _Optional[bytes] = ...) -> None: ...

class NoteReleaseRequest(_message.Message):
    __slots__ = ("digest", "records", "contributions", "changed")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    digest: str
    records: int
    contributions: _containers.RepeatedCompositeFieldContainer[SiteContribution]
    changed: int
    def __init__(self, digest: _Optional[str] = ..., records: _Optional[int] = ..., contributions: _Optional[_Iterable[_Union[SiteContribution, _Mapping]]] = ..., changed: _Optional[int] = ...) -> None: ...

class NoteReleaseResponse(_message.Message):
    __slots__ = ("refused",)
    class RefusedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    refused: _containers.ScalarMap[str, str]
    def __init__(self, refused: _Optional[_Mapping[str, str]] = ...) -> None: ...

class NoteGivenOutRequest(_message.Message):
    __slots__ = ("digest", "sites")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    digest: str
    sites: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, digest: _Optional[str] = ..., sites: _Optional[_Iterable[str]] = ...) -> None: ...

class NoteGivenOutResponse(_message.Message):
    __slots__ = ("lacking",)
    LACKING_FIELD_NUMBER: _ClassVar[int]
    lacking: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lacking: _Optional[_Iterable[str]] = ...) -> None: ...

class GetRenewalRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetRenewalResponse(_message.Message):
    __slots__ = ("entries", "renew_by", "records", "others", "solved_at")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    RENEW_BY_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    SOLVED_AT_FIELD_NUMBER: _ClassVar[int]
    entries: int
    renew_by: _timestamp_pb2.Timestamp
    records: int
    others: _containers.RepeatedCompositeFieldContainer[OtherRelease]
    solved_at: _timestamp_pb2.Timestamp
    def __init__(self, entries: _Optional[int] = ..., renew_by: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., records: _Optional[int] = ..., others: _Optional[_Iterable[_Union[OtherRelease, _Mapping]]] = ..., solved_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class OtherRelease(_message.Message):
    __slots__ = ("entries", "records")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    entries: int
    records: int
    def __init__(self, entries: _Optional[int] = ..., records: _Optional[int] = ...) -> None: ...

class FindRequest(_message.Message):
    __slots__ = ("reader", "states", "kinds", "site", "beginning", "references", "page", "page_size")
    READER_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    BEGINNING_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    reader: str
    states: _containers.RepeatedScalarFieldContainer[RequestState]
    kinds: _containers.RepeatedScalarFieldContainer[str]
    site: str
    beginning: str
    references: _containers.RepeatedScalarFieldContainer[bytes]
    page: int
    page_size: int
    def __init__(self, reader: _Optional[str] = ..., states: _Optional[_Iterable[_Union[RequestState, str]]] = ..., kinds: _Optional[_Iterable[str]] = ..., site: _Optional[str] = ..., beginning: _Optional[str] = ..., references: _Optional[_Iterable[bytes]] = ..., page: _Optional[int] = ..., page_size: _Optional[int] = ...) -> None: ...

class RequestSummary(_message.Message):
    __slots__ = ("request_id", "requester", "kind", "site", "references", "submitted_at", "due_at", "state", "renew_by", "sites", "answered", "erased", "refused", "left")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REQUESTER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    DUE_AT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RENEW_BY_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    ERASED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    requester: str
    kind: str
    site: str
    references: int
    submitted_at: _timestamp_pb2.Timestamp
    due_at: _timestamp_pb2.Timestamp
    state: RequestState
    renew_by: _timestamp_pb2.Timestamp
    sites: int
    answered: int
    erased: int
    refused: int
    left: int
    def __init__(self, request_id: _Optional[str] = ..., requester: _Optional[str] = ..., kind: _Optional[str] = ..., site: _Optional[str] = ..., references: _Optional[int] = ..., submitted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., due_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[_Union[RequestState, str]] = ..., renew_by: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sites: _Optional[int] = ..., answered: _Optional[int] = ..., erased: _Optional[int] = ..., refused: _Optional[int] = ..., left: _Optional[int] = ...) -> None: ...

class FindResponse(_message.Message):
    __slots__ = ("requests", "total")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RequestSummary]
    total: int
    def __init__(self, requests: _Optional[_Iterable[_Union[RequestSummary, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ("reader", "after")
    READER_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    reader: str
    after: int
    def __init__(self, reader: _Optional[str] = ..., after: _Optional[int] = ...) -> None: ...

class FollowResponse(_message.Message):
    __slots__ = ("event", "request_id")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    event: int
    request_id: str
    def __init__(self, event: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class ListSitesRequest(_message.Message):
    __slots__ = ("reader", "beginning", "page", "page_size", "brief")
    READER_FIELD_NUMBER: _ClassVar[int]
    BEGINNING_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    BRIEF_FIELD_NUMBER: _ClassVar[int]
    reader: str
    beginning: str
    page: int
    page_size: int
    brief: bool
    def __init__(self, reader: _Optional[str] = ..., beginning: _Optional[str] = ..., page: _Optional[int] = ..., page_size: _Optional[int] = ..., brief: bool = ...) -> None: ...

class SiteSummary(_message.Message):
    __slots__ = ("site", "registered_at", "left_at", "connected", "seen_at", "orders", "pending", "answered_at", "seconds", "certificate_ends", "release")
    SITE_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_AT_FIELD_NUMBER: _ClassVar[int]
    LEFT_AT_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    SEEN_AT_FIELD_NUMBER: _ClassVar[int]
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_AT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_ENDS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    site: str
    registered_at: _timestamp_pb2.Timestamp
    left_at: _timestamp_pb2.Timestamp
    connected: bool
    seen_at: _timestamp_pb2.Timestamp
    orders: int
    pending: int
    answered_at: _timestamp_pb2.Timestamp
    seconds: float
    certificate_ends: _timestamp_pb2.Timestamp
    release: int
    def __init__(self, site: _Optional[str] = ..., registered_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., left_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., connected: bool = ..., seen_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., orders: _Optional[int] = ..., pending: _Optional[int] = ..., answered_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., seconds: _Optional[float] = ..., certificate_ends: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., release: _Optional[int] = ...) -> None: ...

class ListSitesResponse(_message.Message):
    __slots__ = ("sites", "release", "total")
    SITES_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    sites: _containers.RepeatedCompositeFieldContainer[SiteSummary]
    release: int
    total: int
    def __init__(self, sites: _Optional[_Iterable[_Union[SiteSummary, _Mapping]]] = ..., release: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class GetOverviewRequest(_message.Message):
    __slots__ = ("reader",)
    READER_FIELD_NUMBER: _ClassVar[int]
    reader: str
    def __init__(self, reader: _Optional[str] = ...) -> None: ...

class StateCount(_message.Message):
    __slots__ = ("state", "requests")
    STATE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    state: RequestState
    requests: int
    def __init__(self, state: _Optional[_Union[RequestState, str]] = ..., requests: _Optional[int] = ...) -> None: ...

class WeekCount(_message.Message):
    __slots__ = ("begins", "asked", "ended", "in_time")
    BEGINS_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    IN_TIME_FIELD_NUMBER: _ClassVar[int]
    begins: _timestamp_pb2.Timestamp
    asked: int
    ended: int
    in_time: int
    def __init__(self, begins: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., asked: _Optional[int] = ..., ended: _Optional[int] = ..., in_time: _Optional[int] = ...) -> None: ...

class GetOverviewResponse(_message.Message):
    __slots__ = ("states", "weeks")
    STATES_FIELD_NUMBER: _ClassVar[int]
    WEEKS_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedCompositeFieldContainer[StateCount]
    weeks: _containers.RepeatedCompositeFieldContainer[WeekCount]
    def __init__(self, states: _Optional[_Iterable[_Union[StateCount, _Mapping]]] = ..., weeks: _Optional[_Iterable[_Union[WeekCount, _Mapping]]] = ...) -> None: ...

class InstructRequest(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    def __init__(self, document: _Optional[bytes] = ...) -> None: ...

class InstructResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetInstructionsRequest(_message.Message):
    __slots__ = ("after", "digest")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    after: int
    digest: bytes
    def __init__(self, after: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class NumberedInstruction(_message.Message):
    __slots__ = ("number", "document")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    number: int
    document: bytes
    def __init__(self, number: _Optional[int] = ..., document: _Optional[bytes] = ...) -> None: ...

class GetInstructionsResponse(_message.Message):
    __slots__ = ("instructions",)
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    instructions: _containers.RepeatedCompositeFieldContainer[NumberedInstruction]
    def __init__(self, instructions: _Optional[_Iterable[_Union[NumberedInstruction, _Mapping]]] = ...) -> None: ...
