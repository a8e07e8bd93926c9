import dataclasses
import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daqu_tf import spaces, targets
from daqu_tf.errors import DaquError
from daqu_tf.training.samplers import SAMPLERS
from daqu_tf.training.schedule import AUGMENTATIONS, TRANSFERS, UNITS, WARM_UPS, PrecisionTransfer, Schedule, WarmUp, make_schedule

DIGITS = spaces.get("digits")
NAN, INFINITE = math.nan, math.inf

SHARES = st.floats(0, 1)
COMMON = {
    "length": st.floats(1e-3, 1e6),
    "learning_rate": st.floats(1e-6, 1),
    "sampler": st.sampled_from(sorted(SAMPLERS)),
    "distillation": SHARES,
}
ORDERS = st.sets(st.integers(2, 8), min_size=1).map(lambda bits: tuple(sorted(bits, reverse=True)))
WARM_UP_PHASES = st.builds(WarmUp, patience=st.none() | st.integers(1, 9), **COMMON)
OPENINGS = st.floats(0, 1, exclude_max=True)
TRANSFER_PHASES = st.builds(PrecisionTransfer, order=ORDERS, opening=OPENINGS, step_rate=st.floats(1e-6, 1), **COMMON)
PHASES = st.tuples(st.none() | WARM_UP_PHASES, st.none() | TRANSFER_PHASES).filter(any)
SCHEDULES = st.builds(
    lambda phases, **settings: Schedule(warm_up=phases[0], precision_transfer=phases[1], **settings),
    PHASES,
    unit=st.sampled_from(UNITS),
    batch_size=st.integers(2, 512),
    seed=st.integers(0, 2**31),
    augmentation=st.sampled_from((*AUGMENTATIONS, "shift", "zoom,mirror")),
    guard=st.integers(1, 99),
)


def schedule(warm_up=None, precision_transfer=None, **settings):
    """Both phases, with changes."""
    return Schedule(
        **{
            "unit": "epochs",
            "warm_up": WarmUp(2.0),
            "precision_transfer": PrecisionTransfer(**{"length": 3.0, "order": (8, 6, 4, 3, 2)} | (precision_transfer or {})),
        }
        | ({"warm_up": WarmUp(**warm_up)} if warm_up else {})
        | settings
    )


@pytest.mark.parametrize("cls", [WarmUp, PrecisionTransfer])
@pytest.mark.parametrize(
    "field, value",
    [
        *(("length", value) for value in (0, -1, NAN, INFINITE)),
        *(("learning_rate", value) for value in (0, -1e-3, 1.01, NAN)),
        *(("sampler", value) for value in ("unknown", "", None, "Sandwich")),
        *(("distillation", value) for value in (-0.01, 1.01, NAN)),
    ],
)
def test_bad_fields_of_both_phases_are_named(cls, field, value):
    good = {"length": 1.0} | ({"order": (8, 4)} if cls is PrecisionTransfer else {})
    with pytest.raises(DaquError, match=f"^`{field}` must be .*, but received "):
        cls(**good | {field: value})


@pytest.mark.parametrize("patience", [0, -1])
def test_a_bad_patience_is_named(patience):
    with pytest.raises(DaquError, match="`patience` must be at least 1 scoring"):
        WarmUp(1.0, patience=patience)


@pytest.mark.parametrize(
    "field, value",
    [
        *(("order", value) for value in ((), (4, 8), (8, 8), (8, 4, 6), (8, 2, 2))),
        *(("opening", value) for value in (-0.1, 1, 1.5, NAN)),
        *(("step_rate", value) for value in (0, -1, 2, NAN)),
    ],
)
def test_bad_fields_of_the_precision_transfer_are_named(field, value):
    with pytest.raises(DaquError, match=f"^`{field}` must be .*, but received "):
        PrecisionTransfer(**{"length": 1.0, "order": (8, 4)} | {field: value})


@pytest.mark.parametrize(
    "field, value",
    [
        *(("unit", value) for value in ("seconds", "", None)),
        *(("augmentation", value) for value in ("flip", "", None)),
        *(("batch_size", value) for value in (1, 0, -64)),
        ("seed", -1),
        *(("guard", value) for value in (0, -1)),
    ],
)
def test_bad_fields_of_the_schedule_are_named(field, value):
    with pytest.raises(DaquError, match=f"^`{field}` must be .*, but received "):
        schedule(**{field: value})


def test_there_must_be_a_phase():
    with pytest.raises(DaquError, match="must have a warm-up or a precision transfer"):
        Schedule("epochs", None, None)


def test_bounds_belong_to_the_range():
    WarmUp(1e-9, learning_rate=1, distillation=1, patience=1)
    PrecisionTransfer(1e-9, [8], opening=0, step_rate=1, distillation=0)
    schedule(batch_size=2, seed=0, guard=1)


@given(TRANSFER_PHASES, st.lists(SHARES, min_size=2).map(sorted))
def test_bits_open_from_high_to_low_and_stay_open(phase, dones):
    opened = [phase.open_bits(done) for done in dones]
    for bits in opened:
        assert bits and bits == phase.order[len(bits) - 1 :: -1]  # The highest ones, ascending.
    for before, after in itertools.pairwise(opened):
        assert set(before) <= set(after)
    assert phase.open_bits(phase.opening) == phase.open_bits(1.0) == phase.order[::-1]


@given(TRANSFER_PHASES.filter(lambda phase: phase.opening > 1e-3))
def test_new_bits_open_in_equal_parts_of_the_opening(phase):
    parts = len(phase.order) - 1
    for part in range(parts):
        assert len(phase.open_bits(phase.opening * (part + 0.5) / parts)) == part + 1
    assert len(phase.open_bits(phase.opening * 1.001)) == len(phase.order)


def test_an_opening_of_none_has_all_bits_at_once():
    assert PrecisionTransfer(1.0, (8, 4, 2), opening=0.0).open_bits(0.0) == (2, 4, 8)


def test_length_and_share_of_the_warm_up():
    both = schedule()
    assert both.length == 5.0 and both.warm_up_share == 0.4
    assert dataclasses.replace(both, warm_up=None).warm_up_share == 0.0
    alone = dataclasses.replace(both, precision_transfer=None)
    assert alone.length == 2.0 and alone.warm_up_share == 1.0


def test_check_accepts_what_fits():
    schedule(batch_size=64).check(DIGITS, images=64)
    schedule(precision_transfer={"order": (8, 3)}).check(DIGITS, images=1000)
    schedule(precision_transfer={"order": (8, 6, 4)}).check(DIGITS.restrict(weight_bits=(8,)), images=1000)  # For activations.
    Schedule("epochs", WarmUp(1.0), None).check(DIGITS.restrict(weight_bits=(2,)), images=1000)


@pytest.mark.parametrize(
    "order, allowed, sentence",
    [
        ((8, 5, 4), (2, 3, 4, 6, 8), r"`order` must be among the bits \[2, 3, 4, 6, 8\] of space 'digits'.* \[5\]"),
        ((8, 6, 4), (4, 8), r"`order` must be among .* \[6\]"),
        ((6, 4), (4, 6, 8), "`order` must begin with 8, the highest of the space, but received 6"),
    ],
)
def test_check_of_bits(order, allowed, sentence):
    with pytest.raises(DaquError, match=sentence):
        space = DIGITS.restrict(weight_bits=allowed, activation_bits=allowed)
        schedule(precision_transfer={"order": order}).check(space, images=1000)


@pytest.mark.parametrize("warm_up_only", [False, True])
def test_check_of_the_batch_size(warm_up_only):
    changes = {"precision_transfer": None} if warm_up_only else {}
    with pytest.raises(DaquError, match="`batch_size` must be at most the 63 training images, but received 64"):
        dataclasses.replace(schedule(batch_size=64), **changes).check(DIGITS, images=63)


@given(SCHEDULES)
@settings(deadline=None)
def test_json_round_trip(schedule):
    again = Schedule.from_json(json.loads(json.dumps(schedule.to_json())))
    assert again == schedule and hash(again) == hash(schedule)


def test_fields_that_are_left_out_have_their_defaults():
    content = {"unit": "epochs", "warm_up": {"length": 2}, "precision_transfer": None}
    assert Schedule.from_json(content) == Schedule("epochs", WarmUp(2), None)


def without(content, name):
    return {key: value for key, value in content.items() if key != name}


JSON = schedule().to_json()


@pytest.mark.parametrize(
    "content, sentence",
    [
        *((without(JSON, name), f"A Schedule must have `{name}`") for name in ("unit", "warm_up", "precision_transfer")),
        ({}, "A Schedule must have `.*`, but received only nothing"),
        (JSON | {"batchsize": 64}, "A Schedule has the fields .*batch_size.*, but received `batchsize`"),
        *((content, "A Schedule must be a JSON object, but received ") for content in ([], [JSON], "schedule", None, 3)),
        *((JSON | {"warm_up": content}, "A WarmUp must be a JSON object") for content in ([1.0], "sandwich", 3)),
        *((JSON | {"precision_transfer": content}, "A PrecisionTransfer must be") for content in ([1.0], "progressive")),
        (JSON | {"warm_up": {"sampler": "uniform"}}, "A WarmUp must have `length`, but received only sampler"),
        (JSON | {"warm_up": {"length": 1, "order": [8]}}, "A WarmUp has the fields .*, but received `order`"),
        (JSON | {"precision_transfer": {"length": 1}}, "A PrecisionTransfer must have `order`"),
        (JSON | {"precision_transfer": {"length": 1, "order": [8], "patience": 3}}, "A PrecisionTransfer has .* `patience`"),
        (JSON | {"precision_transfer": {"length": 1, "order": [4, 8]}}, "`order` must be bits from high to low"),
    ],
)
def test_json_that_is_no_schedule(content, sentence):
    with pytest.raises(DaquError, match=sentence):
        Schedule.from_json(content)


@pytest.mark.parametrize("empty", [{}, [], "", 0, False])
def test_an_empty_phase_is_not_a_phase_left_out(empty):
    with pytest.raises(DaquError, match="A WarmUp must"):
        Schedule.from_json(JSON | {"warm_up": empty})


@pytest.mark.parametrize(
    "phase, field, value",
    [
        *(("warm_up", "length", value) for value in ("5", None, [5])),
        *(("warm_up", field, "x") for field in ("learning_rate", "distillation", "patience")),
        ("warm_up", "sampler", []),
        ("warm_up", "patience", 1.5),
        *(("precision_transfer", "order", value) for value in (8, None, ["8"], "84", [8, None])),
        ("precision_transfer", "opening", None),
        *((None, "batch_size", value) for value in ("64", None, 2.5, NAN)),
        *((None, field, value) for field in ("seed", "guard") for value in ("1", 1.5)),
        (None, "unit", ["epochs"]),
    ],
)
def test_values_of_another_kind_are_named(phase, field, value):
    content = JSON | ({phase: JSON[phase] | {field: value}} if phase else {field: value})
    with pytest.raises(DaquError, match=f"`{field}`"):
        Schedule.from_json(content)


@pytest.mark.parametrize("target", ["litert_cpu", "accelerator"])
@pytest.mark.parametrize("transfer", TRANSFERS)
@pytest.mark.parametrize("warm_up", WARM_UPS)
def test_make_schedule(warm_up, transfer, target):
    space = targets.get(target).restrict(DIGITS)
    made = make_schedule(space, warm_up, transfer, 10.0, "epochs", 1e-3, 32, 7, guard=3, augmentation="none")
    made.check(space, images=1000)
    assert (made.unit, made.batch_size, made.seed, made.guard, made.augmentation) == ("epochs", 32, 7, 3, "none")
    assert made.length == pytest.approx(10.0)
    sampler = {"none": "sandwich", "sandwich": "sandwich", "gap_aware": "gap_aware"}[warm_up]
    if warm_up == "none":
        assert made.warm_up is None
    else:
        assert made.warm_up == WarmUp(made.warm_up.length, 1e-3, sampler)
        assert made.warm_up.length == pytest.approx(2.0)
    second = made.precision_transfer
    assert second.length == pytest.approx(10.0 if warm_up == "none" else 8.0)
    assert (second.sampler, second.learning_rate, second.distillation) == (sampler, 1e-3, 0.5)
    assert second.order == {"none": (8,), "all_at_once": (8, 6, 4, 3, 2), "progressive": (8, 6, 4, 3, 2)}[transfer]
    assert (second.opening > 0) == (transfer == "progressive")
    assert second.open_bits(0.0) == ((8,) if transfer != "all_at_once" else (2, 3, 4, 6, 8))
    assert second.open_bits(1.0) == second.order[::-1]


def test_make_schedule_is_of_minutes_by_default():
    assert make_schedule(DIGITS, "gap_aware", "progressive", 1.0).unit == "minutes"


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"warm_up": "gap"}, "`warmup` must be one of none, sandwich, gap_aware, but received 'gap'"),
        ({"warm_up": True}, "`warmup` must be one of"),
        ({"precision_transfer": "at_once"}, "`precision_transfer` must be one of none, all_at_once, progressive"),
        ({"length": 0.0}, "`length` must be above 0"),
        ({"learning_rate": 2.0}, "`learning_rate` must be in"),
        ({"unit": "hours"}, "`unit` must be one of"),
        ({"batch_size": 1}, "`batch_size` must be at least 2"),
        ({"augmentation": "flip"}, "`augmentation` must be one of"),
    ],
)
def test_make_schedule_names_what_is_wrong(changes, sentence):
    with pytest.raises(DaquError, match=sentence):
        make_schedule(**{"space": DIGITS, "warm_up": "none", "precision_transfer": "none", "length": 1.0} | changes)
