"""The protocol, byte for byte. Vectors marked "manual" are the examples of Feetech's FT-SCS protocol document."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_sim.servo_bus import BROADCAST_ID, Instruction, ServoBus, packet
from vla_sim.sts3215 import REBOOT_NS, Address, Sts3215

OK_1 = bytes.fromhex("FF FF 01 02 00 FC")


def make_bus(count: int = 4) -> ServoBus:
    bus = ServoBus(Sts3215(servo_id) for servo_id in range(1, count + 1))
    bus.set_baud_rate(1_000_000)
    return bus


def ask(bus: ServoBus, request: bytes | str, now_ns: int = 0) -> bytes:
    return bus.feed(bytes.fromhex(request) if isinstance(request, str) else request, now_ns).data


def sync_read(address: int, length: int, *ids: int) -> bytes:
    return packet(BROADCAST_ID, Instruction.SYNC_READ, bytes((address, length, *ids)))


def test_ping_manual() -> None:
    assert ask(make_bus(), "FF FF 01 02 01 FB") == OK_1


def test_read_position_manual() -> None:
    bus = make_bus()
    bus.servos[0].jump(1304.0)
    assert ask(bus, "FF FF 01 04 02 38 02 BE") == bytes.fromhex("FF FF 01 04 00 18 05 DD")


def test_write_goal_and_speed_manual() -> None:
    bus = make_bus()
    assert ask(bus, "FF FF 01 09 03 2A 00 08 00 00 E8 03 D5") == OK_1
    assert bus.servos[0].read(Address.GOAL_POSITION, 6) == bytes.fromhex("00 08 00 00 E8 03")


def test_register_write_waits_for_action_manual() -> None:
    bus = make_bus()
    for servo_id in (1, 2):
        stage = packet(servo_id, Instruction.REG_WRITE, bytes.fromhex("2A E8 03"))
        assert ask(bus, stage) == packet(servo_id, 0)
        assert bus.servos[servo_id - 1].read(Address.PENDING_WRITE, 1) == b"\x01"
    assert ask(bus, "FF FF FE 02 05 FA") == b""
    for servo in bus.servos[:2]:
        assert servo.read(Address.GOAL_POSITION, 2) == b"\xe8\x03"
        assert servo.read(Address.PENDING_WRITE, 1) == b"\x00"


def test_sync_write_manual() -> None:
    bus = make_bus()
    block = "00 08 00 00 E8 03"
    request = f"FF FF FE 20 83 2A 06 01 {block} 02 {block} 03 {block} 04 {block} 58"
    assert ask(bus, request) == b""
    assert all(servo.read(Address.GOAL_POSITION, 6) == bytes.fromhex(block) for servo in bus.servos)
    assert bus.counters.sync_writes == 1


def test_reset_manual() -> None:
    assert ask(make_bus(), "FF FF 01 02 0A F2") == OK_1


def test_sync_read_answers_in_the_order_asked() -> None:
    bus = make_bus()
    request = sync_read(Address.PRESENT_POSITION, 2, 3, 1, 9)
    expected = packet(3, 0, b"\x00\x08") + packet(1, 0, b"\x00\x08")
    assert ask(bus, request) == expected
    bus.servos[0].sense(2050.0, 0.0, 0.0)
    assert ask(bus, request) == packet(3, 0, b"\x00\x08") + packet(1, 0, b"\x02\x08")
    assert bus.counters.sync_reads == 2


def test_broadcast_ping_is_answered_by_all_and_other_broadcasts_by_none() -> None:
    bus = make_bus(3)
    assert ask(bus, packet(BROADCAST_ID, Instruction.PING)) == b"".join(packet(i, 0) for i in (1, 2, 3))
    assert ask(bus, packet(BROADCAST_ID, Instruction.WRITE, b"\x28\x01")) == b""
    assert all(servo.torque_on for servo in bus.servos)
    assert ask(bus, packet(BROADCAST_ID, Instruction.READ, b"\x38\x02")) == b""


def test_response_level_zero_answers_only_reads_and_pings() -> None:
    bus = make_bus()
    assert ask(bus, packet(1, Instruction.WRITE, bytes((Address.RESPONSE_LEVEL, 0)))) == OK_1  # the last one
    assert ask(bus, packet(1, Instruction.WRITE, b"\x28\x01")) == b""
    assert bus.servos[0].torque_on
    assert ask(bus, packet(1, Instruction.PING)) == OK_1
    assert ask(bus, packet(1, Instruction.READ, b"\x28\x01")) == packet(1, 0, b"\x01")


def test_an_unknown_id_and_an_unknown_instruction_get_no_answer() -> None:
    bus = make_bus()
    assert ask(bus, packet(77, Instruction.PING)) == b""
    assert ask(bus, packet(1, 0x55)) == b""
    assert ask(bus, packet(1, Instruction.WRITE, b"\x28")) == b""


def test_the_error_byte_is_the_status() -> None:
    bus = make_bus()
    bus.servos[0].forced_voltage_v = 3.0
    bus.servos[0].sense(2048.0, 0.0, 0.0)
    assert ask(bus, packet(1, Instruction.PING)) == packet(1, 1)
    assert ask(bus, sync_read(Address.PRESENT_VOLTAGE, 1, 1)) == packet(1, 1, b"\x1e")


def test_a_new_id_is_heard_at_once() -> None:
    bus = make_bus(1)
    request = sync_read(Address.ID, 1, 1, 8)
    assert ask(bus, request) == packet(1, 0, b"\x01")
    assert ask(bus, packet(1, Instruction.WRITE, bytes((Address.ID, 8)))) == packet(8, 0)
    assert ask(bus, packet(1, Instruction.PING)) == b""
    assert ask(bus, request) == packet(8, 0, b"\x08")


def test_the_wrong_speed_is_not_understood() -> None:
    bus = make_bus()
    bus.set_baud_rate(115_200)
    assert ask(bus, packet(1, Instruction.PING)) == b""
    assert bus.counters.wrong_baud_bytes == 6
    bus.set_baud_rate(1_000_000)
    ask(bus, packet(2, Instruction.WRITE, bytes((Address.BAUD_RATE, 4))))
    bus.set_baud_rate(115_200)
    assert ask(bus, packet(BROADCAST_ID, Instruction.PING)) == packet(2, 0)


def test_restore_and_set_middle() -> None:
    bus = make_bus()
    bus.servos[0].jump(1000.0)
    assert ask(bus, packet(1, Instruction.SET_MIDDLE)) == OK_1
    assert ask(bus, packet(1, Instruction.READ, b"\x38\x02")) == packet(1, 0, b"\x00\x08")
    assert ask(bus, packet(1, Instruction.SET_MIDDLE, b"\x64\x00")) == OK_1
    assert ask(bus, packet(1, Instruction.READ, b"\x38\x02")) == packet(1, 0, b"\x64\x00")
    assert ask(bus, packet(1, Instruction.RESTORE)) == OK_1
    assert ask(bus, packet(1, Instruction.READ, b"\x38\x02")) == packet(1, 0, b"\xe8\x03")


def test_a_rebooting_servo_is_deaf_for_a_while() -> None:
    bus = make_bus()
    ask(bus, packet(1, Instruction.WRITE, b"\x28\x01"))
    assert ask(bus, packet(1, Instruction.REBOOT), now_ns=1000) == b""
    assert ask(bus, packet(1, Instruction.PING), now_ns=REBOOT_NS) == b""
    assert ask(bus, sync_read(5, 1, 1, 2), now_ns=REBOOT_NS) == packet(2, 0, b"\x02")
    assert ask(bus, packet(1, Instruction.PING), now_ns=REBOOT_NS + 1000) == OK_1
    assert not bus.servos[0].torque_on


def test_a_bad_checksum_is_ignored() -> None:
    bus = make_bus()
    assert ask(bus, "FF FF 01 02 01 FA") == b""
    assert bus.counters.checksum_errors == 1
    assert ask(bus, "FF FF 01 02 01 FB") == OK_1


@given(st.lists(st.integers(1, 7), min_size=1, max_size=8), st.binary(max_size=6).filter(lambda b: b"\xff" not in b))
def test_requests_may_arrive_in_any_pieces_after_any_noise(cuts: list[int], noise: bytes) -> None:
    bus = make_bus(2)
    stream = (
        noise + packet(1, Instruction.PING) + packet(2, Instruction.READ, b"\x05\x01") + packet(1, Instruction.PING)
    )
    answer, start = b"", 0
    for cut in [*cuts, len(stream)]:
        answer += ask(bus, stream[start : start + cut])
        start += cut
    assert answer == OK_1 + packet(2, 0, b"\x02") + OK_1


@given(st.binary(max_size=300))
def test_no_garbage_breaks_the_parser(garbage: bytes) -> None:
    bus = make_bus(2)
    ask(bus, garbage)
    ask(bus, b"\0" * 300)  # whatever packet the garbage began ends here
    assert ask(bus, packet(1, Instruction.PING)).endswith(OK_1[:2] + b"\x01\x02" + bytes((0, 0xFC)))


def test_a_run_of_ff_before_the_header_is_skipped() -> None:
    assert ask(make_bus(), b"\xff\xff\xff" + packet(1, Instruction.PING)) == OK_1


def test_a_silent_servo_is_missing_from_every_answer() -> None:
    bus = make_bus(3)
    request = sync_read(Address.ID, 1, 1, 2, 3)
    assert len(ask(bus, request)) == 3 * 7
    assert bus.silence(2, on=True)
    assert ask(bus, packet(2, Instruction.PING)) == b""
    assert ask(bus, request) == packet(1, 0, b"\x01") + packet(3, 0, b"\x03")
    assert bus.silence(2, on=False)
    assert len(ask(bus, request)) == 3 * 7
    assert not bus.silence(99, on=True)


def test_counted_faults_end_by_themselves() -> None:
    bus = make_bus()
    bus.faults.drop_next = 1
    assert ask(bus, packet(1, Instruction.PING)) == b""
    bus.drop_partial_request()
    bus.faults.corrupt_next = 1
    assert ask(bus, packet(1, Instruction.PING)) == b""
    assert (bus.counters.bytes_dropped, bus.counters.bytes_corrupted) == (1, 1)
    assert not bus.faults.active
    bus.drop_partial_request()
    assert ask(bus, packet(1, Instruction.PING)) == OK_1


def test_a_noisy_line_spoils_some_answers_and_mending_it_helps() -> None:
    bus = make_bus()
    bus.faults.corrupt_rate = 0.02
    good = 0
    for _ in range(200):
        good += ask(bus, packet(1, Instruction.PING)) == OK_1
        bus.drop_partial_request()
    assert 100 < good < 195
    bus.mend()
    assert ask(bus, packet(1, Instruction.PING)) == OK_1


def test_wire_time_counts_bytes_and_return_delays() -> None:
    bus = make_bus(2)
    request = sync_read(Address.PRESENT_POSITION, 2, 1, 2)
    answer = bus.feed(request, 0)
    bytes_ns = (len(request) + len(answer.data)) * 10_000
    assert answer.wire_time_ns == bytes_ns + 2 * 250 * 2_000
    for servo_id in (1, 2):
        ask(bus, packet(servo_id, Instruction.WRITE, bytes((Address.RETURN_DELAY, 0))))
    assert bus.feed(request, 0).wire_time_ns == bytes_ns


def test_power_cycle_forgets_what_was_not_saved() -> None:
    bus = make_bus(1)
    ask(bus, packet(1, Instruction.WRITE, bytes((Address.ID, 8))))  # locked
    bus.power_cycle()
    assert ask(bus, packet(1, Instruction.PING)) == OK_1


@pytest.mark.parametrize("servo_id", [-1, 254])
def test_impossible_ids_are_refused(servo_id: int) -> None:
    with pytest.raises(ValueError, match="servo id"):
        Sts3215(servo_id)


def test_only_sync_writes_of_goals_are_noted_with_their_time() -> None:
    bus = make_bus(1)
    goal = packet(BROADCAST_ID, Instruction.SYNC_WRITE, bytes((Address.GOAL_POSITION, 2, 1, 0, 8)))
    beside = packet(BROADCAST_ID, Instruction.SYNC_WRITE, bytes((Address.GOAL_POSITION - 1, 2, 1, 0, 8)))
    elsewhere = packet(BROADCAST_ID, Instruction.SYNC_WRITE, bytes((Address.GOAL_POSITION - 1, 1, 1, 8)))
    for now_ns, request in enumerate([goal, sync_read(56, 2, 1), elsewhere, beside, goal[:-1], goal[-1:]]):
        ask(bus, request, now_ns)
    assert list(bus.goal_writes_ns) == [0, 3, 5]
