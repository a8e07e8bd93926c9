from families import FAMILIES

from daqu_tf import spaces
from daqu_tf.spaces.hand_scaled import hand_scaled
from daqu_tf.targets import costs


def widths(subnet):
    return [value for name, value in subnet.choices if name.endswith(".width")]


def test_the_series_of_mobilenet_v2_is_the_one_that_people_make():
    """By MobileNetV2's own rule: multiples of 8 that are never more than a tenth below the product."""
    space = spaces.get("mobilenet_v2")
    series = hand_scaled(space)
    assert [widths(subnet) for subnet in series] == [[8, 8, 16, 24], [8, 16, 24, 32], [16, 16, 32, 48], [16, 24, 40, 64]]
    for subnet in series:
        assert [subnet[f"stage{stage}.depth"] for stage in (1, 2, 3, 4)] == [2, 2, 1, 2]
        assert {value for name, value in subnet.choices if name.endswith(".expansion")} == {1, 6}
        layers = {layer.name: layer for layer in space.layers(subnet)}
        # The sums of MobileNetV2: wherever the shapes agree.
        assert [name for name, layer in layers.items() if layer.residual] == [
            f"stage{stage}.block{block}.project" for stage, block in ((1, 1), (1, 2), (2, 2), (4, 2))
        ]


def test_every_space_has_a_series_from_small_to_large():
    for space in (*spaces.SPACES.values(), *FAMILIES.values()):
        series = hand_scaled(space)
        macs = [costs.macs(space, subnet) for subnet in series]
        assert macs == sorted(macs) and len(set(series)) == len(series)
        assert {subnet["resolution"] for subnet in series} == {space.genes[0].values[-1]}


def test_a_narrowed_space_has_the_nearest():
    space = spaces.get("mobilenet_v2").restrict(**{"stage4.width": (32, 48), "expansion": (1, 4)})
    assert {widths(subnet)[-1] for subnet in hand_scaled(space)} == {32, 48}
