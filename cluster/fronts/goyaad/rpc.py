"""net/rpc with gob, the server's side: requests out of bytes, answers into bytes.

RULE: sans I/O. Texts of errors are Go's own, where Go has one for it.

A request is a header (method, number) and a body, each a value of its own with the types it needs
before it. Answers name the number and come in any order. A header that cannot be read ends the
connection; a body that cannot be read is answered with an error, and the next header is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from cluster.fronts.gob.decoder import Decoder, StructType, Value
from cluster.fronts.gob.encoder import Encoder
from cluster.fronts.gob.kinds import (
    BYTES,
    INT,
    STRING,
    UINT,
    Basic,
    GobError,
    Kind,
    Slice,
    Struct,
)
from cluster.fronts.gob.messages import MESSAGE_BYTES_MAX, Messages, Oversized

SERVICE: Final = "RPCServer"
METHOD_BYTES_MAX: Final = 1024

REQUEST: Final = Struct("Request", (("ServiceMethod", STRING), ("Seq", UINT)))
RESPONSE: Final = Struct("Response", (("ServiceMethod", STRING), ("Seq", UINT), ("Error", STRING)))
JOB: Final = Struct("RPCJob", (("Body", BYTES), ("ID", STRING), ("Delay", INT)))
JOBS: Final = Slice(JOB)
NOTHING: Final = Struct("")

_INT8_MAX = 127
_UINT64_MAX = 2**64 - 1


class BrokenStream(Exception):
    """Nothing more can be read from this connection; the message says why."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `argument`: as its method takes it; `size`: of its bytes on the wire."""

    method: str
    seq: int
    argument: Any
    size: int


@dataclass(frozen=True, slots=True)
class BadCall:
    """A request that gets no further: `error` is what its client is told."""

    method: str
    seq: int
    error: str


Asked: TypeAlias = Call | BadCall


class Requests:
    """Reads the requests of one connection."""

    def __init__(self) -> None:
        self._messages = Messages()
        self._decoder = Decoder()
        self._header: tuple[str, int] | None = None
        self._has_types = False

    @property
    def is_between(self) -> bool:
        """Nothing of a message has come that is not finished."""
        return self._messages.is_between

    def feed(self, data: bytes) -> Iterator[Asked]:
        """Take in what arrived; gives each request that is whole now.

        Raises:
            BrokenStream: in place of the next request.
        """
        try:
            for message in self._messages.feed(data):
                asked = self._take(message)
                if asked is not None:
                    yield asked
        except GobError as error:
            if self._header is not None:
                yield self._spoilt(*self._header, str(error))
                self._header = None
            raise BrokenStream(str(error)) from None

    def end(self) -> BadCall | None:
        """The stream is over: a request whose body never came is answered too."""
        if self._header is None:
            return None
        is_clean = self._messages.is_between and not self._has_types
        return self._spoilt(*self._header, "EOF" if is_clean else "unexpected EOF")

    def _take(self, message: bytes | Oversized) -> Asked | None:
        header = self._header
        if isinstance(message, Oversized):
            if header is None:
                raise BrokenStream(f"a request's header of {message.size} bytes")
            self._header = None
            text = f"Rejecting job. {message.size} bytes are more than {MESSAGE_BYTES_MAX}"
            return self._spoilt(*header, text)
        try:
            value = self._decoder.message(message)
            if value is None:
                self._has_types = True
                return None
            if header is None:
                self._header = self._read_header(value)
                self._has_types = False
                return None
        except GobError as error:
            if header is None:
                raise BrokenStream(f"rpc: server cannot decode request: {error}") from None
            self._header = None
            return self._spoilt(*header, str(error))
        self._header = None
        return self._called(*header, value, len(message))

    def _read_header(self, value: Value) -> tuple[str, int]:
        found = _struct(self._decoder, value, REQUEST, "rpc.Request")
        method, seq = found.get("ServiceMethod", ""), found.get("Seq", 0)
        if len(method) > METHOD_BYTES_MAX:
            raise GobError("the name of a method is too long")
        return method, seq

    def _called(self, method: str, seq: int, value: Value, size: int) -> Asked:
        read = _reader_of(method)
        if isinstance(read, str):
            return BadCall(method, seq, read)
        try:
            return Call(method, seq, read(self._decoder, value), size)
        except GobError as error:
            return BadCall(method, seq, str(error))

    def _spoilt(self, method: str, seq: int, error: str) -> BadCall:
        """What is said of a request whose body cannot be read: first that nobody would take it."""
        read = _reader_of(method)
        return BadCall(method, seq, read if isinstance(read, str) else error)


class Answers:
    """Writes the answers of one connection."""

    def __init__(self) -> None:
        self._encoder = Encoder()

    def result(self, call: Call, kind: Kind, value: Any) -> bytes:
        """The answer to a call that went well."""
        return self._answer(call, "", kind, value)

    def error(self, call: Asked, text: str) -> bytes:
        """The answer to one that did not; Go sends an empty struct in place of a result."""
        return self._answer(call, text, NOTHING, {})

    def _answer(self, call: Asked, error: str, kind: Kind, value: Any) -> bytes:
        header = {"ServiceMethod": call.method, "Seq": call.seq, "Error": error}
        encode = self._encoder.encode
        return encode(RESPONSE, header) + encode(kind, value)


# Arguments. What Go would not decode into the method's own type is refused in Go's words.


def _struct(decoder: Decoder, value: Value, kind: Struct, go_name: str) -> dict[str, Any]:
    """The fields of a struct that we know; others are skipped, whatever they are."""
    remote = decoder.type_of(value.type_id)
    if not isinstance(remote, StructType):
        raise GobError(f"gob: type mismatch in decoder: want struct type {go_name}; got non-struct")
    local = dict(kind.fields)
    matched = False
    for name, type_id in remote.fields:
        part = local.get(name)
        if part is None:
            continue
        matched = True
        if not _fits(type_id, part):
            go = _GO_TYPES[name]
            raise GobError(f"gob: wrong type ({go}) for received field {remote.name}.{name}")
    if remote.fields and not matched:
        short = go_name.rpartition(".")[2]
        raise GobError(f"gob: type mismatch: no fields matched compiling decoder for {short}")
    return {name: one for name, one in value.value.items() if name in local}


_GO_TYPES: Mapping[str, str] = {
    "ServiceMethod": "string",
    "Seq": "uint64",
    "Body": "[]uint8",
    "ID": "string",
    "Delay": "time.Duration",
}


def _fits(type_id: int, kind: Kind) -> bool:
    return isinstance(kind, Basic) and type_id == kind.id


def _singleton(decoder: Decoder, value: Value, kind: Kind, go_name: str) -> Any:
    if not _fits(value.type_id, kind):
        remote = decoder.name_of(value.type_id)
        raise GobError(f"gob: decoding into local type *{go_name}, received remote type {remote}")
    return value.value


def _job(decoder: Decoder, value: Value) -> dict[str, Any]:
    return _struct(decoder, value, JOB, "protocol.RPCJob")


def _text(decoder: Decoder, value: Value) -> Any:
    return _singleton(decoder, value, STRING, "string")


def _integer(go_name: str) -> Callable[[Decoder, Value], Any]:
    def read(decoder: Decoder, value: Value) -> Any:
        return _singleton(decoder, value, INT, go_name)

    return read


def _int8(decoder: Decoder, value: Value) -> Any:
    number = _singleton(decoder, value, INT, "int8")
    if not -_INT8_MAX - 1 <= number <= _INT8_MAX:
        raise GobError('value for "*int8" out of range')
    return number


_Read: TypeAlias = Callable[[Decoder, Value], Any]

_ARGUMENTS: Mapping[str, _Read] = {
    "PutWithID": _job,
    "Cancel": _text,
    "Next": _integer("int64"),
    "Ping": _int8,
    "InspectN": _integer("int"),
}


def _reader_of(method: str) -> _Read | str:
    """What reads a method's argument; what a client is told where there is no such method."""
    service, dot, name = method.rpartition(".")
    if not dot:
        return f"rpc: service/method request ill-formed: {method}"
    if service != SERVICE:
        return f"rpc: can't find service {method}"
    return _ARGUMENTS.get(name) or f"rpc: can't find method {method}"
