"""One client's connection: the greeting with its token, requests on streams, events, and what faults do to them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from gg_bridge.testing.character import Character
from gg_bridge.testing.faults import Faults
from gg_bridge.testing.frames import Decoder, Flags, Frame, FrameError, MessageType, encode
from vla_core.errors import EvergreenError

_LOG = logging.getLogger(__name__)

Json = dict[str, Any]
VERSION: Final = "0.1.0"
_SERVICE: Final = "aws.greengrass#"
_READ_BYTES: Final = 65536


class Refusal(EvergreenError):  # noqa: N818 (an answer of the protocol, not an accident)
    """An answer that is an error: `kind` as Greengrass names it, such as `ResourceNotFoundError`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Stream:
    """One request's stream, on which events may follow the answer."""

    def __init__(self, connection: Connection, number: int, operation: str) -> None:
        self._connection = connection
        self.number = number
        self.operation = operation
        self.answered = False
        self.request: Json = {}

    def send_event(self, shape: str, payload: Mapping[str, Any]) -> None:
        """Send an event, such as a `ConfigurationUpdateEvents`."""
        self._connection.send_message(self, shape, payload)


Handler = Callable[[Json, Stream], Awaitable[Json]]


class Host(Protocol):
    """What connections need of the nucleus."""

    @property
    def character(self) -> Character:
        """Which kind of nucleus it is."""

    @property
    def faults(self) -> Faults:
        """What it does wrong at present."""

    @property
    def token(self) -> str:
        """What a client must show."""

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By the operation's name."""

    @property
    def streaming(self) -> Mapping[str, set[Stream]]:
        """Of each operation with events, the streams that are open."""

    def count_pong(self) -> None:
        """A client has answered a ping."""


class Connection:
    """Serves one client until it hangs up."""

    def __init__(self, host: Host, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer
        self._greeted = False
        self._streams: dict[int, Stream] = {}

    @property
    def greeted(self) -> bool:
        """The client has shown its token."""
        return self._greeted

    async def serve(self) -> None:
        """Read and answer."""
        decoder = Decoder()
        try:
            while data := await self._reader.read(_READ_BYTES):
                for frame in decoder.feed(data):
                    await self._handle(frame)
        except (_HangUp, ConnectionError) as end:
            _LOG.debug("a connection ended: %s", end)
        except FrameError as error:
            _LOG.warning("a client that does not speak event-stream: %s", error)
        finally:
            for stream in tuple(self._streams.values()):
                self._close_stream(stream)
            self._writer.close()

    def drop(self, *, mid_message: bool = False) -> None:
        """Break the connection, or, with `mid_message`, after the first half of a message."""
        if mid_message:
            self._write_half(Frame(MessageType.PING, payload=b"the second half of this is never sent"))
        self._writer.close()

    def ping(self, payload: bytes) -> None:
        """Ask whether the client is there."""
        self._write(Frame(MessageType.PING, payload=payload))

    def send_message(self, stream: Stream, shape: str, payload: Mapping[str, Any], flags: Flags = Flags.NONE) -> None:
        """Send an answer or an event on a stream."""
        self._write(_json_frame(MessageType.APPLICATION_MESSAGE, stream.number, flags, shape, payload))

    # What comes in

    async def _handle(self, frame: Frame) -> None:
        limit = self._host.character.max_message_bytes
        if limit and len(encode(frame)) > limit:
            raise _HangUp(f"a message of more than {limit} bytes")
        if frame.type == MessageType.CONNECT:
            await self._greet(frame)
        elif not self._greeted:
            raise _HangUp("a message before the greeting")
        elif frame.type == MessageType.PING:
            self._write(Frame(MessageType.PING_RESPONSE, headers=frame.headers, payload=frame.payload))
        elif frame.type == MessageType.PING_RESPONSE:
            self._host.count_pong()
        elif frame.type == MessageType.APPLICATION_MESSAGE:
            await self._on_application(frame)

    async def _greet(self, frame: Frame) -> None:
        faults = self._host.faults
        await asyncio.sleep(faults.delay_s)
        if "Connect" in faults.mute:
            return
        token = _object(frame.payload).get("authToken")
        if frame.headers.get(":version") == VERSION and token == self._host.token:
            self._greeted = True
            self._write(Frame(MessageType.CONNECT_ACK, flags=Flags.CONNECTION_ACCEPTED))
            return
        if self._host.character.says_no_to_a_void_token:
            self._write(Frame(MessageType.CONNECT_ACK))
        raise _HangUp("a void token, or another protocol version")

    async def _on_application(self, frame: Frame) -> None:
        stream = self._streams.get(frame.stream)
        if frame.flags & Flags.TERMINATE_STREAM:
            if stream is not None:
                self._close_stream(stream)
            return
        if stream is None:
            name = str(frame.headers.get("operation", "")).removeprefix(_SERVICE)
            stream = self._streams[frame.stream] = Stream(self, frame.stream, name)
            stream.request = _object(frame.payload)
            await self._answer(stream)

    async def _answer(self, stream: Stream) -> None:
        faults = self._host.faults
        await asyncio.sleep(faults.delay_s)
        if stream.operation in faults.mute:
            return
        try:
            answer = await self._perform(stream, faults)
        except Refusal as refusal:
            self._refuse(stream, refusal)
            return
        streaming = stream.operation in self._host.streaming
        ends = self._host.character.ends_answered_streams and not streaming
        flags = Flags.TERMINATE_STREAM if ends else Flags.NONE
        frame = _answer_frame(stream, answer, flags, faults)
        if stream.operation in faults.cut:
            self._write_half(frame)
            raise _HangUp("cut in the middle of a message")
        limit = self._host.character.max_message_bytes
        if limit and len(encode(frame)) > limit:
            self._refuse(stream, Refusal("ServiceError", f"the answer has more than {limit} bytes"))
            return
        self._write(frame)
        stream.answered = True
        if streaming:
            self._host.streaming[stream.operation].add(stream)
        elif ends:
            self._close_stream(stream)

    async def _perform(self, stream: Stream, faults: Faults) -> Json:
        handler = self._host.handlers.get(stream.operation)
        known = stream.operation in self._host.character.operations and stream.operation not in faults.lacking
        if handler is None or not known:
            raise Refusal("", f"{stream.operation} is an unsupported operation.")
        if stream.operation in faults.deny:
            raise Refusal("UnauthorizedError", f"not authorised to perform {stream.operation}")
        if stream.operation in faults.fail:
            raise Refusal("ServiceError", f"{stream.operation} was told to fail")
        return await handler(stream.request, stream)

    # What goes out

    def _refuse(self, stream: Stream, refusal: Refusal) -> None:
        character = self._host.character
        kind = refusal.kind
        if not kind and character.names_unknown_operations:
            kind = "ServiceError"
        text = {"message": str(refusal)} if character.errors_carry_message else {"_message": str(refusal)}
        frame = _json_frame(
            MessageType.APPLICATION_ERROR, stream.number, Flags.TERMINATE_STREAM, kind, {**text, "_errorCode": kind}
        )
        self._write(frame)
        self._close_stream(stream)

    def _close_stream(self, stream: Stream) -> None:
        self._streams.pop(stream.number, None)
        for open_streams in self._host.streaming.values():
            open_streams.discard(stream)

    def _write(self, frame: Frame) -> None:
        self._writer.write(encode(frame))

    def _write_half(self, frame: Frame) -> None:
        raw = encode(frame)
        self._writer.write(raw[: len(raw) // 2])


class _HangUp(Exception):  # noqa: N818 (what the nucleus does, not what went wrong)
    """The nucleus ends the connection."""


def _answer_frame(stream: Stream, answer: Mapping[str, Any], flags: Flags, faults: Faults) -> Frame:
    if stream.operation in faults.malform:
        answer = {"value": "not an object", "componentName": 7}
    shape = f"{stream.operation}Response"
    frame = _json_frame(MessageType.APPLICATION_MESSAGE, stream.number, flags, shape, answer)
    if stream.operation in faults.garble:
        return Frame(frame.type, frame.stream, frame.flags, frame.headers, b'{"value": ')
    return frame


def _json_frame(type_: MessageType, stream: int, flags: Flags, shape: str, payload: Mapping[str, Any]) -> Frame:
    headers: dict[str, int | str] = {":content-type": "application/json"}
    if shape:
        headers["service-model-type"] = _SERVICE + shape
    return Frame(type_, stream, flags, headers, json.dumps(payload).encode())


def _object(payload: bytes) -> Json:
    try:
        value = json.loads(payload) if payload else {}
    except ValueError as error:
        raise _HangUp(f"a payload that is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise _HangUp("a payload that is no JSON object")
    return value
