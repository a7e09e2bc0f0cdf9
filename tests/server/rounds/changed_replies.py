"""Changing what a site answers in a round, as a program could that speaks Flower's own format but means no good.

Each change is wrong whatever the numbers are, so no reply that has one may count. A reply travels as a tree of objects;
`damaged` changes the bytes of one of them.
"""

from __future__ import annotations

import math
import random
import ssl
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from numpy.typing import NDArray

from fedmunkey.common.programs.round_messages import CERTIFICATE, CONFIG, METRICS, NUMBERS, SITE, STATEMENT
from fedmunkey.common.proofs.contributions import Contribution
from fedmunkey.common.proofs.signing.statements import read_envelope
from tests.common.proofs.mutations import mutate
from tests.solved_nodes import KEYS, signed_statement

Change = Callable[[RecordDict, random.Random], object]

_NO_COUNTS: tuple[Any, ...] = (
    -1,
    -99,
    10**12,
    2**63 - 1,
    -(2**63),
    0.5,
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    [],
    [1, 2],
    [0.5],
)
_NO_WHOLE_NUMBERS = (-1, -(2**63), 0.0, 1.5, math.nan, math.inf, "", "1", "7" * 5000, b"", b"1", [1], ["a"], True)
_NO_NAMES = (
    "",
    "\n",
    "a\nb",
    "\x1b[2J",
    "x" * 10_000,
    "hospital-0",
    "hospital-1",
    "HOSPITAL-2",
    3,
    1.5,
    b"\xff",
    ["a"],
)
_NO_SHARES: tuple[Any, ...] = (-0.5, 1.0001, 7.0, math.inf, -math.inf, 1e300, [0.5], [])


def nothing(content: RecordDict, draws: random.Random) -> None:
    """Answer with no records at all."""
    del draws
    for name in list(content):
        del content[name]


def another_kind(*parts: str) -> Change:
    """Return what puts a record of another kind where one of some records is, or takes it away."""

    def change(content: RecordDict, draws: random.Random) -> None:
        part = draws.choice(parts)
        others = [
            record
            for record in (ConfigRecord({"a": 1}), MetricRecord({"a": 1}), ArrayRecord({"a": Array(np.zeros(1))}))
            if not isinstance(record, type(content[part]))
        ]
        del content[part]
        if draws.random() < 0.7:
            content[part] = draws.choice(others)

    return change


def no_name(content: RecordDict, draws: random.Random) -> None:
    """Answer as somebody else, or as nobody."""
    site = cast(ConfigRecord, content[SITE])
    if draws.random() < 0.2:
        del site[SITE]
    else:
        site[SITE] = cast(Any, draws.choice(_NO_NAMES))


def no_count(name: str) -> Change:
    """Return what says something else than a number of records."""
    return lambda content, draws: content.metric_records[METRICS].update({name: cast(Any, draws.choice(_NO_COUNTS))})


def no_share(name: str) -> Change:
    """Return what says an accuracy that cannot be."""
    return lambda content, draws: content.metric_records[METRICS].update({name: cast(Any, draws.choice(_NO_SHARES))})


def no_metric(content: RecordDict, draws: random.Random) -> None:
    """Tell a metric that is no number."""
    name = draws.choice(("more", "test-accuracy", "train-loss", "x" * 3000, "\n", ""))
    content.metric_records[METRICS][name] = cast(Any, draws.choice((math.inf, -math.inf, [1.0, 2.0], [], [math.nan])))


def no_whole_number(*names: str) -> Change:
    """Return what says something else than a whole number from 0 on, or nothing."""

    def change(content: RecordDict, draws: random.Random) -> None:
        said, name = content.config_records[CONFIG], draws.choice(names)
        if draws.random() < 0.2:
            del said[name]
        else:
            said[name] = cast(Any, draws.choice(_NO_WHOLE_NUMBERS))

    return change


_KINDS = ("f2", "c16", "i1", "u4", "?", "S3", "U2", "f4", "f8", "i8", "u8", ">f4", ">u8")
_SHAPES = ((), (0,), (1,), (1, 1, 1, 1), (0, 3), (2048, 64))

_ARRAYS: tuple[Callable[[Array, NDArray[Any], random.Random], Array], ...] = (
    lambda _, numbers, draws: Array(np.zeros(numbers.shape, draws.choice(_others(_KINDS, numbers.dtype)))),
    lambda _, numbers, draws: Array(np.zeros(draws.choice(_others(_SHAPES, numbers.shape)), numbers.dtype)),
    lambda _, numbers, __: Array(numbers[None]),
    lambda _, numbers, __: Array(np.concatenate([numbers.reshape(-1)] * 2)),
    lambda _, numbers, __: Array(numbers.reshape(-1)[:-1]),
    lambda array, _, draws: Array(array.dtype, array.shape, array.stype, _other_bytes(array, draws)),
    lambda array, _, __: Array(array.dtype, (10**6, 10**6), array.stype, array.data),
    lambda array, _, __: Array("O", array.shape, array.stype, array.data),
    lambda array, _, __: Array(array.dtype, array.shape, "pickle", array.data),
)


def no_array(content: RecordDict, draws: random.Random) -> None:
    """Send an array of another kind, shape, length or name, or with other bytes than it says, or none."""
    arrays = content.array_records["arrays"]
    name = draws.choice(list(arrays))
    kind = draws.randrange(len(_ARRAYS) + 3)
    if kind < len(_ARRAYS):
        arrays[name] = _ARRAYS[kind](arrays[name], arrays[name].numpy(), draws)
    elif kind == len(_ARRAYS):
        arrays[draws.choice(("more", "", "\n", name + "x"))] = arrays.pop(name)
    elif kind == len(_ARRAYS) + 1:
        del arrays[name]
    else:
        content["arrays"] = ArrayRecord()


def _others(known: Sequence[Any], own: Any) -> list[Any]:
    return [each for each in known if each != own]


def not_finite(content: RecordDict, draws: random.Random) -> None:
    """Send weights some of which are no numbers."""
    arrays = content.array_records["arrays"]
    name = draws.choice(list(arrays))
    numbers = arrays[name].numpy().copy()
    numbers.reshape(-1)[draws.randrange(numbers.size)] = draws.choice((math.nan, math.inf, -math.inf))
    arrays[name] = Array(numbers)


def _other_bytes(array: Array, draws: random.Random) -> bytes:
    data = array.data
    header = data[: data.index(b"\n") + 1]
    kind = np.dtype(array.dtype).str.encode()
    return draws.choice(
        (
            b"",
            b"no array",
            header,
            data[: draws.randrange(len(data))],
            b"\x93NUMPY\x01\x00\xff\xff" + data,
            header.replace(b"(", b"(" * 40) + data[len(header) :],
            # Objects would run what their pickle says.
            header.replace(b"'%s'" % kind, b"'|O'".ljust(len(kind) + 2)) + b"\x80\x04.",
            header.replace(b"(", b"(99999999999,").replace(b" " * 12 + b"\n", b"\n") + data[len(header) :],
        )
    )


def no_certificate(content: RecordDict, draws: random.Random) -> None:
    """Show a certificate one bit of which is another, a part of one, or none."""
    pem = str(content.config_records[CONFIG][CERTIFICATE])
    data = bytearray(ssl.PEM_cert_to_DER_cert(pem))
    data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
    shown = draws.choice((ssl.DER_cert_to_PEM_cert(bytes(data)), "", "\n", 7, [1], b"x", pem[: len(pem) // 2], pem * 2))
    content.config_records[CONFIG][CERTIFICATE] = cast(Any, shown)


def no_statement(content: RecordDict, draws: random.Random) -> None:
    """Sign something else, or let somebody else sign, or change what was signed."""
    said = content.config_records[CONFIG]
    statement = str(said[STATEMENT])
    site = str(content.config_records[SITE][SITE])
    numbers = content.array_records["arrays"][NUMBERS].numpy()
    round_id = Contribution.of(read_envelope(statement.encode())).round_id
    other = mutate(statement.encode(), draws).decode(errors="replace")
    said[STATEMENT] = cast(
        Any,
        draws.choice(
            (
                other if other != statement else "{}",
                signed_statement(site, round_id, numbers, key=KEYS["hospital-1"]),
                signed_statement("hospital-1", round_id, numbers, key=KEYS["hospital-1"]),
                signed_statement(site, "1-before", numbers),
                signed_statement(site, round_id, numbers + np.uint64(1)),
                signed_statement(site, round_id, numbers, 7),
                statement * 3,
                "[" * 50_000,
                7,
                statement.encode(),
            )
        ),
    )


def other_numbers(content: RecordDict, draws: random.Random) -> None:
    """Send as many whole numbers as are asked for, which are no sums of any records, and sign for them."""
    numbers = content.array_records["arrays"][NUMBERS].numpy()
    drawn = np.random.default_rng(draws.randrange(2**32))
    most = draws.choice((2**64 - 1, 2**40, 2))
    others = drawn.integers(0, most, numbers.shape, np.uint64, endpoint=True)
    content.array_records["arrays"][NUMBERS] = Array(others)
    said = content.config_records.get(CONFIG, ConfigRecord())
    if STATEMENT in said:
        round_id = Contribution.of(read_envelope(str(said[STATEMENT]).encode())).round_id
        said[STATEMENT] = signed_statement(str(content.config_records[SITE][SITE]), round_id, others)


def damaged(reply: Message, draws: random.Random) -> Message:
    """Return a reply as it comes out of the objects that it travels in, the bytes of one of which were changed.

    Raises whatever Flower raises for what cannot be put together.
    """
    name = reply.object_id
    contents = {each: found.deflate() for each, found in get_all_nested_objects(reply).items()}
    chosen = draws.choice(sorted(contents))
    data = contents[chosen]
    place = draws.randrange(len(data))
    kind = draws.randrange(6)
    if kind == 0:
        changed = data[:place]
    elif kind == 1:
        changed = data[:place] + bytes([data[place] ^ (1 << draws.randrange(8))]) + data[place + 1 :]
    elif kind == 2:
        changed = data[:place] + draws.randbytes(draws.randrange(1, 9)) + data[place:]
    elif kind == 3:
        changed = contents[draws.choice(sorted(contents))]
    elif kind == 4:
        changed = data[:place] + data[min(len(data), place + draws.choice((1, 8, 100))) :]
    else:
        changed = draws.choice((b"", b"Message\x00", data * 2, draws.randbytes(100)))
    contents[chosen] = changed
    return cast(Message, inflate_object_from_contents(name, contents))
