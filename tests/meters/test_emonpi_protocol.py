"""The dialects of an emonPi's serial port, line by line."""

from __future__ import annotations

import binascii

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irene_build.errors import HardwareError
from irene_build.hardware import load_profile
from irene_build.meters.emonpi_protocol import (
    GRAMMARS,
    REASONS,
    ClassicBytes,
    Frame,
    Grammar,
    Json,
    KeyValue,
    Pattern,
    Reject,
    decode,
    grammars,
    plausible,
)
from tests.meters.wire import classic

#: The example of the firmware's documentation: 312 W at 230.47 V.
DOCUMENTED = "OK 5 56 1 0 0 56 1 7 90 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 (-0)"
KEYVALUE = "MSG:1,V1:230.47,P1:312,E1:12,pulse:0"
JSON = '{"MSG":1,"V1":230.47,"P1":312,"E1":12,"pulse":0}'


def test_a_classic_frame_is_little_endian_power() -> None:
    assert ClassicBytes().parse(DOCUMENTED) == Frame(312.0, "real", 1.0, checked=True)
    assert classic(312) == DOCUMENTED


def test_the_channel_names_the_clamp() -> None:
    line = classic(300, 45)
    assert [ClassicBytes(channel=c).parse(line).power_w for c in (0, 1, 2)] == [345.0, 300.0, 45.0]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("OK 19 1 0 0 0 (-45)", "foreign"),
        ("? 5 3 1 0 0 (-99)", "rejected"),
        ("emonPi V2.9.4", "banner"),
        (" -> 5 b", "banner"),
        ("OK 5 56 1 0 0 56 1 7 90 0 0", "torn"),
        ("6 1 0 0 56 1 7 90 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 (-0)", "torn"),
        (DOCUMENTED.replace("OK 5 56", "OK 5 5"), "torn"),  # P1 + P2 is not their sum
        (DOCUMENTED.replace(" 90 ", " 900 "), "torn"),  # no byte
        (classic(312, voltage=320.0), "implausible"),
    ],
)
def test_what_is_no_classic_frame_says_why(line: str, reason: str) -> None:
    assert ClassicBytes().parse(line) == Reject(reason)


def test_key_value_and_json_say_the_same() -> None:
    expected = Frame(312.0, "real", 1.0, sequence=1, energy_wh=12.0)
    assert KeyValue().parse(KEYVALUE) == expected
    assert Json().parse(JSON) == expected


def test_volts_and_amperes_give_apparent_power() -> None:
    frame = KeyValue().parse("V:230.00,I:1.50")
    assert frame == Frame(345.0, "apparent", pytest.approx(2.3))


@pytest.mark.parametrize("cut", range(4, len(KEYVALUE)))
def test_a_key_value_line_that_lost_its_end_is_torn_once_a_whole_one_was_seen(cut: int) -> None:
    grammar = KeyValue()
    assert isinstance(grammar.parse(KEYVALUE), Frame)
    frame = grammar.parse(KEYVALUE[:cut])
    # Only the digits of the last value can be lost unseen, and that one is no power.
    assert frame in (Reject("torn"), Reject("banner")) or (frame == grammar.parse(KEYVALUE))


@pytest.mark.parametrize("cut", range(1, len(JSON)))
def test_half_a_json_line_is_never_a_frame(cut: int) -> None:
    assert isinstance(Json().parse(JSON[:cut]), Reject)


def test_the_profile_of_pc1_reads_volts_and_amperes_in_any_notation() -> None:
    pattern = load_profile("pc1").meter["pattern"]
    for line in ("V=120.1 I=2.000", "T:12.5 Vrms:120.1, Irms:2.000", "V: 120.1\tI: 2.000"):
        frame = Pattern(pattern).parse(line)
        assert isinstance(frame, Frame)
        assert frame.power_w == pytest.approx(240.2)
        assert frame.power_kind == "apparent"


def test_a_pattern_may_carry_the_meters_clock_and_a_checksum() -> None:
    grammar = Pattern(load_profile("virtual").meter["pattern"])
    body = "T=12.340 V=120.03 I=0.431"
    line = f"{body}*{binascii.crc_hqx(body.encode(), 0):04X}"
    frame = grammar.parse(line)
    assert isinstance(frame, Frame)
    assert (frame.time_s, frame.power_w) == (12.34, pytest.approx(120.03 * 0.431))
    assert grammar.parse(line.replace("0.431", "0.481")) == Reject("torn")


def test_a_value_with_fewer_decimals_than_before_lost_its_end() -> None:
    grammar = Pattern()
    assert isinstance(grammar.parse("V=230.1 I=1.345"), Frame)
    assert grammar.parse("V=230.1 I=1.3") == Reject("torn")


@pytest.mark.parametrize("pattern", ["(", "(?P<volts>1)", "(?P<voltage_v>1)"])
def test_a_pattern_that_cannot_work_is_wrong_input(pattern: str) -> None:
    with pytest.raises(HardwareError, match=r"meter\.pattern"):
        Pattern(pattern)


def test_an_unknown_grammar_names_the_known_ones() -> None:
    with pytest.raises(HardwareError, match="classic"):
        grammars({"grammar": "morse"})


def emonpi_cm(
    p1: int, p2: int = 0, voltage: float = 230.47, message: int = 7, e1: int = 12, e2: int = 3
) -> str:
    """A frame as struct emonPi of the emonPi_CM firmware is sent."""
    words = [p1, p2, p1 + p2, round(100 * voltage)] + [0] * 6
    data = message.to_bytes(4, "little") + b"".join((word & 0xFFFF).to_bytes(2, "little") for word in words)
    data += b"".join(value.to_bytes(4, "little", signed=True) for value in (0, 0, e1, e2))
    return f"OK 5 {' '.join(map(str, data))} (-0)"


def emontx_v3(*powers: int, voltage: float = 230.47) -> str:
    words = [*powers, round(100 * voltage)] + [3000] * 6
    data = b"".join((word & 0xFFFF).to_bytes(2, "little") for word in words) + bytes(4)
    return f"OK 8 {' '.join(map(str, data))} (-55)"


def test_the_continuous_firmware_sends_a_number_and_its_energies_as_well() -> None:
    line = emonpi_cm(312, 45)
    assert ClassicBytes().parse(line) == Frame(312.0, "real", 1.0, None, 7, 12.0, checked=True)
    assert [ClassicBytes(channel=c).parse(line).power_w for c in (0, 1, 2)] == [357.0, 312.0, 45.0]
    assert ClassicBytes(channel=3).parse(line) == Reject("foreign")


def test_the_emontx_v3_has_four_clamps_and_all_are_the_sum() -> None:
    line = emontx_v3(312, 45, -3, 700)
    assert [ClassicBytes(8, c).parse(line).power_w for c in range(5)] == [1054.0, 312.0, 45.0, -3.0, 700.0]
    assert KeyValue(0).parse("V1:230.5,P1:100,P2:20,P3:3,P4:4000,E1:1").power_w == 4123.0


def test_without_mains_the_firmware_assumes_a_voltage_and_its_power_is_apparent() -> None:
    for line in (classic(312, voltage=0.4), emonpi_cm(312, voltage=1.2)):
        assert ClassicBytes().parse(line).power_kind == "apparent"
    assert ClassicBytes(8).parse(emontx_v3(1, 2, 3, 4, voltage=0.0)).power_kind == "apparent"
    assert KeyValue().parse("MSG:1,V1:0.12,P1:312,E1:12").power_kind == "apparent"
    assert Json().parse('{"V1":0.12,"P1":312}').power_kind == "apparent"


@pytest.mark.parametrize(
    ("grammar", "line", "watts"),
    [
        (KeyValue(), "MSG:1,V1:230,47,P1:312,5,E1:12,pulse:0", 312.5),
        (KeyValue(), "V1:230.47V,P1:0.3125kW,E1:12Wh", 312.5),
        (KeyValue(), "V1:230.47,P1:3.125e2,E1:12", 312.5),
        (KeyValue(), "V:230.0,I:1500mA", 345.0),
        (Json(), '{"V1":230.47,"P1":3.125e2}', 312.5),
        (Json(), '{"V1":"230,47 V","P1":"312,5 W"}', 312.5),
        (Pattern(), "V=230,0 I=1,500", 345.0),
        (Pattern(), "V=230.0 I=1,500", 345.0),
        (Pattern(), "V=230.0 V, I=1500mA", 345.0),
        (Pattern(), "V=230.0 I=1.5e0", 345.0),
        (Pattern(r"P=(?P<power_w>\d+\.\d+)"), "P=0.345kW", 345.0),
        (Pattern(r"(?P<voltage_v>\d+),(?P<current_a>\d+)"), "230,2", 460.0),
    ],
)
def test_commas_exponents_and_units_are_read_as_what_they_say(
    grammar: Grammar, line: str, watts: float
) -> None:
    frame = grammar.parse(line)
    assert isinstance(frame, Frame) and frame.power_w == pytest.approx(watts)


@pytest.mark.parametrize(
    ("grammar", "line"),
    [
        (KeyValue(), "V1:230.47,P1:312.5.1,E1:12"),
        (KeyValue(), "V1:230.47,P1:312x,E1:12"),
        (KeyValue(), "V1:230.47,P1:1.3A,E1:12"),
        (KeyValue(), "V1:2304.7,P1:312,E1:12"),
        (Json(), '{"V1":230.47,"P1":"312 Hz"}'),
        (Pattern(), "V=230.0 I=1.500.2"),
        (Pattern(), "V=230.0 I=1.500kW"),
        (Pattern(r"P=(?P<power_w>\d+)"), "P=312W7"),
    ],
)
def test_what_goes_on_otherwise_is_no_smaller_number(grammar: Grammar, line: str) -> None:
    assert isinstance(grammar.parse(line), Reject)


@pytest.mark.parametrize(
    "odd", ["MSG:1,V1:230.47,P1:312,E1:12,T1:20.5,pulse:0", "MSG:1,V1:230.47,P1:312,E1:12"]
)
@pytest.mark.parametrize("first", [True, False])
def test_one_odd_line_does_not_spoil_the_rest_and_a_lasting_change_is_taken_over(
    odd: str, first: bool
) -> None:
    """A field more, a sensor gone: at the start, in between, for good."""
    grammar = KeyValue()
    lines = [odd, *[KEYVALUE] * 6] if first else [KEYVALUE, odd, *[KEYVALUE] * 6]
    verdicts = [grammar.parse(line) for line in lines]
    assert all(isinstance(verdict, Frame) for verdict in verdicts[-4:])
    verdicts = [grammar.parse(odd) for _ in range(6)]
    assert all(isinstance(verdict, Frame) for verdict in verdicts[-4:])


def test_a_sum_never_goes_on_with_fewer_clamps() -> None:
    grammar = KeyValue(0)
    assert isinstance(grammar.parse("V1:230.5,P1:100,P2:20,pulse:0"), Frame)
    assert {grammar.parse("V1:230.5,P1:100,pulse:0") for _ in range(9)} == {Reject("torn")}
    assert isinstance(grammar.parse("V1:230.5,P1:100,P2:21,pulse:0"), Frame)


def test_power_that_no_pc_draws_is_no_frame() -> None:
    assert plausible(Frame(25_000.0, "real", 1.0)) == Reject("implausible")
    assert plausible(Frame(float("nan"), "real", 1.0)) == Reject("implausible")
    assert plausible(Frame(-60.0, "real", 1.0)) == Reject("reversed")
    assert plausible(Frame(-60.0, "real", 1.0), reverse=True) == Frame(60.0, "real", 1.0)
    assert plausible(Frame(-1.0, "real", 1.0)) == Frame(0.0, "real", 1.0)


@given(raw=st.binary(max_size=200))
def test_no_bytes_crash_a_grammar(raw: bytes) -> None:
    text = decode(raw)
    if text is None:
        return
    for make in GRAMMARS.values():
        verdict = make({}).parse(text)
        assert isinstance(verdict, (Frame, Reject))
        if isinstance(verdict, Reject):
            assert verdict.reason in REASONS


@given(text=st.text(alphabet='OK 0123456789:,.{}"VPIMSGT=()-?*nNaife+', max_size=80))
def test_no_text_of_the_right_letters_crashes_a_grammar_or_gives_an_impossible_power(text: str) -> None:
    for make in GRAMMARS.values():
        verdict = make({}).parse(text)
        if isinstance(verdict, Frame):
            verdict = plausible(verdict)
        if isinstance(verdict, Frame):
            assert 0.0 <= verdict.power_w <= 20_000.0


@given(p1=st.integers(-30_000, 30_000), damage=st.data())
def test_a_classic_frame_with_a_byte_lost_or_changed_never_gives_another_power(
    p1: int, damage: st.DataObject
) -> None:
    line = classic(p1)
    place = damage.draw(st.integers(0, len(line) - 1))
    changed = line[:place] + line[place + 1 :]
    verdict = ClassicBytes().parse(changed)
    # The sum P1 + P2 is in the frame: a damaged P1 disagrees with it.
    assert isinstance(verdict, Reject) or verdict.power_w == p1


@given(
    volts=st.floats(100, 260), amperes=st.floats(0, 12), place=st.integers(0, 60), length=st.integers(1, 12)
)
def test_a_frame_with_a_checksum_survives_any_loss_or_is_rejected(
    volts: float, amperes: float, place: int, length: int
) -> None:
    body = f"T=12.340 V={volts:.2f} I={amperes:.3f}"
    line = f"{body}*{binascii.crc_hqx(body.encode(), 0):04X}"
    grammar = Pattern(load_profile("virtual").meter["pattern"])
    whole = grammar.parse(line)
    damaged = line[:place] + line[place + length :]
    verdict = grammar.parse(damaged)
    assert isinstance(whole, Frame)
    assert isinstance(verdict, Reject) or (damaged == line and verdict == whole)
