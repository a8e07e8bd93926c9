"""The integer codes of every activation tensor that a network computes in eager mode, in order of computation."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from daqu_tf.supernet.quantizers import SwitchableQuantizer


@contextlib.contextmanager
def recorded_codes():
    """Yields a list that grows by an array for every activation that is quantized within the block."""
    codes: list[np.ndarray] = []
    with pytest.MonkeyPatch.context() as patch:
        for method in ("activate", "normalize", "codes"):
            patch.setattr(SwitchableQuantizer, method, _recording(getattr(SwitchableQuantizer, method), method, codes))
        yield codes


def _recording(method, name: str, codes: list[np.ndarray]):
    def recording(self, *arguments, **options):
        result = method(self, *arguments, **options)
        tensor = result[0] if name == "normalize" else result
        weights = next((argument for argument in arguments if isinstance(argument, dict)), None)
        step = 1.0 if name == "codes" else self.step(weights)
        codes.append((tf.convert_to_tensor(tensor) / step).numpy())
        return result

    return recording


def disagreement(codes: list[np.ndarray], others: list[np.ndarray]) -> tuple[float, float]:
    """The share of codes that differ, and by how much at most."""
    assert len(codes) == len(others) > 0
    differences = [np.abs(np.round(a) - np.round(b).reshape(a.shape)).ravel() for a, b in zip(codes, others)]
    everything = np.concatenate(differences)
    return float(np.mean(everything > 0)), float(everything.max())


def agree_where_they_first_differ(codes: list[np.ndarray], others: list[np.ndarray]) -> bool:
    """Whether, in the first tensor that differs at all, few codes do, each by one; tensors behind it read other numbers.

    Few are a thousandth, or two in a small tensor: sums in another order put as many on the other side of a tie. Of means over
    pixels (count, channels) they are a twentieth, since means of integers often lie at ties.
    """
    for pair in zip(codes, others, strict=True):
        share, most = disagreement([pair[0]], [pair[1]])
        if share > 0:
            few = 0.05 if pair[0].ndim == 2 else 1e-3
            return share <= max(few, 2 / pair[0].size) and most <= 1
    return True
