import benchmark_outputs
import pytest

from daqu_tf.devices import DeviceSetupError, ModelError, steadiness
from daqu_tf.devices.benchmark_model import (
    Statistics,
    applied,
    arguments,
    check_flags,
    failure,
    known_flags,
    output_arguments,
    parse,
    refused_flags,
)

# By output: all that it says, read by eye.
MEANINGS = {
    "MEDIANS": Statistics(1000, 63743.2, 51891, 49088, 686105, 60716, 9, 119515, 55.4961),
    "MEANS": Statistics(50, 2.95034e6, None, 2727568, 3189954, 109798, 1, 17187, 46.0859, 93.2383),
    "AVERAGES": Statistics(50, 79760.9, None, 77385, 88213, 1929, 7, 38467),
    "NO_STATS": Statistics(459, 2177.1, None, 2056, 2656, 124, 215, 896),
    "LOGCAT": Statistics(10, 2.71985e6, 2709263, 2640862, 3025403, 105101, 1, 458883, 337),
    "LITERT": Statistics(74, 13520.2, 13401, 13105, 15765, 470, 37, 12750, 32.4, 35.2),
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
    statistics = parse("count=4 curr=5(all same)\n\ncount=6 curr=7(all same)\nInference (avg): 7\n")
    assert (statistics.count, statistics.min_us, statistics.max_us, statistics.warmup_runs) == (6, 7, 7, 4)


BEGINNING = "INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.\n"
WARMUP = f"{BEGINNING}INFO: count=3 first=90 curr=41 min=40 max=90 avg=57 std=23 p5=40 median=41 p95=90\n\n"
END = "INFO: Inference timings in us: Init: 9, First inference: 90, Warmup (avg): 57, Inference (avg): {}\n"
LITERT_END = "INFO: [benchmark_litert_model.h:86] Inference (avg):      {} ms ({} runs)\n"

# What Stat and StatWithPercentiles print, by their sources: count, mean, median, min, max, standard deviation.
FORMS = {
    "count=1 curr=7": (1, 7, None, 7, 7, None),
    "count=1 curr=7 p5=7 median=7 p95=7": (1, 7, 7, 7, 7, None),
    "count=50 curr=7(all same)": (50, 7, None, 7, 7, 0),
    "count=50 curr=7(all same) p5=7 median=7 p95=7": (50, 7, 7, 7, 7, 0),
    "count=2 first=8 curr=7 min=7 max=8 avg=7.5 std=0": (2, 7.5, None, 7, 8, 0),
    "count=9 first=3 curr=2 min=2 max=4000000000 avg=4.5e+08 std=1257078722 p5=2 median=3 p95=4000000000": (
        *(9, 4.5e8, 3, 2, 4e9, 1257078722),
    ),
    "count=9007199254740993 first=3 curr=2 min=2 max=4 avg=3 std=1": (9007199254740993, 3, None, 2, 4, 1),
    # The time of day was set back; the root of a negative number became an integer.
    "count=4 first=-3600000000 curr=8 min=-3600000000 max=9 avg=-9e+08 std=-9223372036854775808 p5=7 median=8 p95=9": (
        *(4, -9e8, 8, -3.6e9, 9, None),
    ),
}


@pytest.mark.parametrize("end", ["", END.format("1e+06"), LITERT_END.format("0.01", 50)])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_statistics_is_read_after_a_warmup(form, end):
    for output in (f"{WARMUP}{BEGINNING}INFO: {form}\n\n{end}", f"count=3 curr=41(all same)\ncount={form[6:]}\n{end}"):
        found = parse(output)
        assert (found.count, found.mean_us, found.median_us, found.min_us, found.max_us, found.std_us) == FORMS[form]
        assert found.warmup_runs == 3


@pytest.mark.parametrize("timed", ["", BEGINNING, f"{BEGINNING}INFO: count=50 first=9 curr=9 min=9 max=12 avg=1"])
def test_the_warmup_is_never_taken_for_the_measurement(timed):
    with pytest.raises(ModelError, match="no mean of its calls after the warm-up .*: try again"):
        parse(WARMUP + timed)
    with pytest.raises(ModelError, match="no mean of its calls after the warm-up .*: try again"):
        parse("count=3 curr=41(all same) p5=41 median=41 p95=41\n")
    for end, mean in ((END.format(9.5), 9.5), (LITERT_END.format("13.52", 74), 13520)):
        assert (parse(f"{WARMUP}{timed}\n{end}").mean_us, parse(f"{WARMUP}{timed}\n{end}").median_us) == (mean, None)


def test_one_line_that_agrees_with_the_end_is_that_of_the_timed_calls():
    line = "count=74 first=14850 curr=13315 min=13105 max=15765 avg=13520.2 std=470 p5=13122 median=13401 p95=14420\n"
    for end in (END.format(13520.2), LITERT_END.format("13.52", 74)):
        assert (parse(line + end).median_us, parse(line + end).count) == (13401, 74)
    assert parse(line + END.format(9.5)) == Statistics(None, 9.5, init_us=9)


def test_the_end_of_litert_alone_is_enough():
    lines = benchmark_outputs.LITERT.splitlines()
    found = parse("\n".join(line for line in lines if "count=" not in line))
    assert found == Statistics(74, 13520, None, 13100, 15770, 470, None, 12750, 32.4, 35.2)


@pytest.mark.parametrize("end", ["", END.format(0), LITERT_END.format("0.00", 0)])
@pytest.mark.parametrize("form", ["count=0", "count=0 p5=0 median=0 p95=0"])
def test_no_timed_calls_are_said(form, end):
    with pytest.raises(ModelError, match="made no timed call .*: let it run without `--dry_run`"):
        parse(f"{WARMUP}{BEGINNING}INFO: {form}\n\n{end}")


@pytest.mark.parametrize(
    "form", ["avg=nan std=0", "avg=inf std=0", "avg=7,5 std=0", "avg=7.5 std=0INFO: Created", "avg=7.5 (some)"]
)
def test_statistics_that_no_program_prints_are_refused(form):
    with pytest.raises(ModelError, match="where a number belongs: try again"):
        parse(f"{WARMUP}{BEGINNING}INFO: count=2 first=8 curr=7 min=7 max=8 {form}\n\n{END.format(7.5)}")
    with pytest.raises(ModelError, match="no mean of its calls"):
        parse("Inference (avg): 7,5\n")


def test_several_benchmarks_in_one_are_refused():
    with pytest.raises(DeviceSetupError, match="more than one benchmark .*: name the program benchmark_model itself"):
        parse(benchmark_outputs.MEDIANS * 2 + "==============Summary of All Runs w/ Different Performance Options==============\n")


def test_equal_calls_have_no_spread():
    found = parse(f"{WARMUP}{BEGINNING}count=50 curr=7(all same) p5=7 median=7 p95=7\n")
    assert found.flags(1e6) == [] and found.typical_us == 7
    assert steadiness.relative_spread((found.typical_us,) * 3) == 0 and not len(steadiness.outliers((found.typical_us,) * 3))
    assert parse("count=1 curr=9\ncount=50 curr=7(all same)\n").flags(1e6) == []


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


TFLITE, LITERT = known_flags(benchmark_outputs.TFLITE_HELP), known_flags(benchmark_outputs.LITERT_HELP)
BEFORE_XNNPACK = TFLITE - {"use_xnnpack", "min_secs"}


def test_the_flags_that_a_build_knows():
    assert {"graph", "use_xnnpack", "output_filepath"} <= TFLITE and "mediatek_neron_sdk_version_type" not in LITERT
    assert {"graph", "use_cpu"} <= LITERT and "use_xnnpack" not in LITERT
    assert not known_flags(benchmark_outputs.MEDIANS) and not known_flags("")


@pytest.mark.parametrize(
    ("known", "delegate", "last", "left_out"),
    [
        (TFLITE, "none", "--use_xnnpack=false", ()),
        (TFLITE, "nnapi", "--use_nnapi=true", ()),
        (LITERT, "xnnpack", "--warmup_min_secs=1", ()),  # Which it uses anyhow.
        (LITERT, "gpu", "--use_gpu=true", ()),
        (BEFORE_XNNPACK, "none", "--warmup_min_secs=1", ("--min_secs=0.2",)),
        ((), "none", "--use_xnnpack=false", ()),
    ],
)
def test_only_flags_that_a_build_knows_are_passed(known, delegate, last, left_out):
    found = arguments("/m.tflite", 4, delegate, 50, 0.2, 1.0, known)
    assert found[-1] == last
    common = ["--graph=/m.tflite", "--num_threads=4", "--num_runs=50", "--min_secs=0.2", "--warmup_runs=1", "--warmup_min_secs=1"]
    assert found[: 6 - len(left_out)] == [each for each in common if each not in left_out]


@pytest.mark.parametrize(
    ("known", "delegate", "sentence"),
    [
        (LITERT, "none", "does not know --use_xnnpack, which `delegate` none needs: use `delegate` xnnpack, or take TFLite's own"),
        (LITERT, "nnapi", "does not know --use_nnapi, which `delegate` nnapi needs"),
        (TFLITE - {"graph"}, "xnnpack", "This program does not know --graph, as every benchmark_model does"),
    ],
)
def test_a_flag_that_is_needed_and_not_known_is_a_fault_of_the_program(known, delegate, sentence):
    with pytest.raises(DeviceSetupError, match=sentence):
        arguments("/m.tflite", 4, delegate, 50, 0.2, 1.0, known)


def test_a_build_without_the_flags_for_outputs_gives_none():
    assert output_arguments("/m", 1, "xnnpack", (1, 2), "/in", "/out", TFLITE)[-1] == "--output_filepath=/out"
    with pytest.raises(ModelError, match="gives no outputs .*--output_filepath.*: compare them elsewhere"):
        output_arguments("/m", 1, "xnnpack", (1, 2), "/in", "/out", LITERT)


def test_a_flag_that_was_ignored_is_a_fault_where_it_counts():
    ignored = "WARN: Unconsumed cmdline flags: --use_nnapi=true --min_secs=1"
    with pytest.raises(DeviceSetupError, match="does not know --use_nnapi"):
        check_flags(ignored, "nnapi")
    with pytest.raises(DeviceSetupError, match="does not know --use_xnnpack, which `delegate` none needs"):
        check_flags("WARN: Unconsumed cmdline flags: --use_xnnpack=false", "none")
    for delegate, output in (("gpu", ignored), ("xnnpack", "WARN: Unconsumed cmdline flags: --use_xnnpack=true"), ("gpu", "")):
        check_flags(output, delegate)


def test_flags_that_were_refused_are_told_from_models():
    assert refused_flags("ERROR: Failed to parse flag 'use_gpu' against argv '--use_gpu=maybe'\n") == (
        "Failed to parse flag 'use_gpu' against argv '--use_gpu=maybe'"
    )
    assert refused_flags(benchmark_outputs.TFLITE_HELP) == "usage"
    assert refused_flags(benchmark_outputs.FAILURE) is None and refused_flags("INFO: Memory usage: 7 MB") is None


@pytest.mark.parametrize(
    ("said", "delegates"),
    [
        ("Replacing 31 out of 31 node(s) with delegate (LITERT_CL) node, yielding 1 partitions for subgraph 0 (main).", {"gpu"}),
        ("Replacing 31 out of 33 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions.", {"xnnpack"}),
        ("Replacing 0 out of 31 node(s) with delegate (LITERT_CL) node, yielding 0 partitions.", set()),
    ],
)
def test_the_runtime_says_who_took_the_graph(said, delegates):
    assert {delegate for delegate in ("xnnpack", "gpu", "nnapi") if applied(f"VERBOSE: {said}\n", delegate)} == delegates


def test_a_failure_is_told_by_its_first_error():
    assert failure(benchmark_outputs.FAILURE).startswith("tensorflow/lite/kernels/batch_matmul.cc:353")
    assert failure("") == "nothing at all"
