import pytest
from hypothesis import given
from hypothesis import strategies as st

from arm_driver.feetech import protocol
from arm_driver.feetech.protocol import Decoder, Status

ids = st.integers(0, protocol.MAX_ID)
payloads = st.binary(max_size=40)
statuses = st.builds(Status, ids, st.integers(0, 0x3F), payloads)


def encode(status: Status) -> bytes:
    return protocol.status(status.servo_id, status.error, status.data)


def test_packets_are_those_of_the_manual():
    """The examples of Feetech's protocol manual."""
    assert protocol.ping(1) == bytes.fromhex("ffff010201fb")
    assert protocol.read(1, 0x38, 2) == bytes.fromhex("ffff0104023802be")
    assert protocol.write(0xFE, 5, b"\x01") == bytes.fromhex("fffffe04030501f4")
    assert protocol.reg_write(1, 0x2A, bytes.fromhex("00080000e803")) == bytes.fromhex("ffff0109042a00080000e803d4")
    assert protocol.action() == bytes.fromhex("fffffe0205fa")
    assert protocol.sync_read(0x38, 8, (1, 2)) == bytes.fromhex("fffffe0682380801023 6".replace(" ", ""))


def test_sync_write_interleaves_ids_and_data():
    packet = protocol.sync_write(42, (1, 2), (b"\x00\x08", b"\x01\x09"))
    assert packet[:5] == b"\xff\xff\xfe\x0a\x83"
    assert packet[5:-1] == bytes((42, 2, 1, 0, 8, 2, 1, 9))
    assert sum(packet[2:]) & 0xFF == 0xFF


@pytest.mark.parametrize("bad", [(), (1, 1), (254,), (-1,)])
def test_ids_of_a_sync_read_must_be_servos(bad):
    with pytest.raises(ValueError, match="servo ids"):
        protocol.sync_read(56, 2, bad)


def test_sync_write_needs_equal_blocks():
    with pytest.raises(ValueError, match="one block of one length"):
        protocol.sync_write(42, (1, 2), (b"a", b"bc"))
    with pytest.raises(ValueError, match="do not fit"):
        protocol.write(1, 0, bytes(300))
    with pytest.raises(ValueError, match="servo id"):
        protocol.ping(255)


@given(st.lists(statuses, max_size=8), st.lists(st.integers(1, 30), max_size=40))
def test_any_split_of_a_stream_decodes_to_the_same_packets(sent, cuts):
    stream = b"".join(map(encode, sent))
    decoder, got = Decoder(), []
    for cut in cuts:
        piece, stream = stream[:cut], stream[cut:]
        got += decoder.feed(piece)
    got += decoder.feed(stream)
    assert got == sent
    assert decoder.skipped == decoder.corrupt == decoder.clear() == 0


@given(st.binary(max_size=60).map(lambda noise: noise.replace(b"\xff", b"")), statuses, statuses)
def test_noise_between_packets_is_skipped(noise, first, second):
    decoder = Decoder()
    assert decoder.feed(encode(first) + noise + encode(second)) == [first, second]
    assert decoder.skipped == len(noise)


@given(statuses, st.data())
def test_one_damaged_byte_never_yields_the_packet(status, data):
    packet = bytearray(encode(status))
    index = data.draw(st.integers(2, len(packet) - 1))
    packet[index] ^= data.draw(st.integers(1, 255))
    assert status not in Decoder().feed(bytes(packet))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_raise_and_are_accounted_for(noise):
    decoder = Decoder()
    found = decoder.feed(noise)
    assert sum(len(encode(status)) for status in found) + decoder.skipped + decoder.clear() == len(noise)


def test_a_packet_behind_a_broken_one_is_found():
    broken = bytearray(protocol.status(1, 0, b"ab"))
    broken[-1] ^= 1
    decoder = Decoder()
    assert decoder.feed(bytes(broken) + protocol.status(2)) == [Status(2, 0, b"")]
    assert decoder.corrupt == 1


def test_error_bits_have_names():
    assert protocol.error_names(0) == ()
    assert protocol.error_names(0x24) == ("too hot", "overloaded")
    assert protocol.error_names(0x80) == ("unknown error 0x80",)
