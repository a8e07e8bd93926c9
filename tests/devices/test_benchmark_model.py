import benchmark_outputs
import pytest

from daqu_tf.devices import ModelError
from daqu_tf.devices.benchmark_model import Statistics, applied, arguments, failure, parse

# By output: all that it says, read by eye.
MEANINGS = {
    "MEDIANS": Statistics(1000, 63743.2, 51891, 49088, 686105, 60716, 9, 119515, 55.4961),
    "MEANS": Statistics(50, 2.95034e6, None, 2727568, 3189954, 109798, 1, 17187, 46.0859, 93.2383),
    "AVERAGES": Statistics(50, 79760.9, None, 77385, 88213, 1929, 7, 38467),
    "NO_STATS": Statistics(459, 2177.1, None, 2056, 2656, 124, 215, 896),
    "LOGCAT": Statistics(10, 2.71985e6, 2709263, 2640862, 3025403, 105101, 1, 458883, 337),
    "PROFILE": Statistics(50, 79732, None, 77385, 88213, 1929),
}


@pytest.mark.parametrize("name", MEANINGS)
def test_every_format_is_read(name):
    assert parse(getattr(benchmark_outputs, name)) == MEANINGS[name]


def test_the_mean_alone_is_enough():
    assert parse("Inference (avg): 1234.5") == Statistics(None, 1234.5)


def test_a_single_call_is_its_own_extremes():
    statistics = parse("count=1 curr=9\n\ncount=1 curr=7\nInference timings in us: Init: 3, Warmup (avg): 9, Inference (avg): 7\n")
    assert statistics == Statistics(1, 7, None, 7, 7, None, 1, 3)


def test_equal_calls_are_their_own_extremes():
    statistics = parse("count=4 curr=5 (all same)\n\ncount=6 curr=7 (all same)\nInference (avg): 7\n")
    assert (statistics.count, statistics.min_us, statistics.max_us, statistics.warmup_runs) == (6, 7, 7, 4)


def test_the_typical_time_is_the_median_or_else_the_mean():
    assert parse(benchmark_outputs.MEDIANS).typical_us == 51891
    assert parse(benchmark_outputs.MEANS).typical_us == 2.95034e6


@pytest.mark.parametrize("cut", ["MEDIANS", "MEANS", "AVERAGES", "NO_STATS"])
def test_an_output_without_its_end_is_refused(cut):
    output = getattr(benchmark_outputs, cut)
    with pytest.raises(ModelError, match="no mean of its calls"):
        parse(output[: output.index("count=") + 60])


@pytest.mark.parametrize("output", ["", "\x00\xff\x1b[2J\ufffd", "Inference (avg): nan", "Inference (avg): x"])
def test_garbage_is_refused_in_one_readable_sentence(output):
    with pytest.raises(ModelError, match="no mean of its calls") as caught:
        parse(output)
    assert str(caught.value).isprintable()


def test_a_number_that_is_none_is_refused():
    with pytest.raises(ModelError, match="1.2.3"):
        parse("count=5 avg=1.2.3\nInference (avg): 7\n")


def test_delegates_that_were_applied_are_told_from_those_that_were_not():
    assert applied(benchmark_outputs.MEDIANS, "xnnpack") and not applied(benchmark_outputs.NO_STATS, "xnnpack")
    for said in ("Applied GPU delegate, and the model graph will be completely executed w/ the delegate.",):
        assert applied(said, "gpu") and not applied(said, "nnapi")
    assert applied("Explicitly applied NNAPI delegate, and the model graph will be partially executed by the delegate", "nnapi")
    refused = "Though XNNPACK delegate is explicitly applied, the model graph will not be executed by the delegate.\n"
    assert not applied(refused + benchmark_outputs.MEDIANS, "xnnpack")
    assert not applied("Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.", "gpu")


def test_arguments():
    assert arguments("/m.tflite", 4, "gpu", 50, 0.2, 1.0) == [
        "--graph=/m.tflite",
        "--num_threads=4",
        "--num_runs=50",
        "--min_secs=0.2",
        "--warmup_runs=1",
        "--warmup_min_secs=1",
        "--use_gpu=true",
    ]


def test_a_failure_is_told_by_its_first_error():
    assert failure(benchmark_outputs.FAILURE).startswith("tensorflow/lite/kernels/batch_matmul.cc:353")
    assert failure("") == "nothing at all"
