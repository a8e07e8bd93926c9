"""What `benchmark_model` prints, by the years of its format: published outputs, shortened."""

import re

# With medians; of phones since about 2024.
MEDIANS = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Min num runs: [1000]
INFO: Loaded model model.tflite
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 2168 out of 2168 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for subgraph 0.
INFO: The input model file size (MB): 24.6229
INFO: Initialized session in 119.515ms.
INFO: Running benchmark for at least 5 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=9 first=87112 curr=51629 min=51629 max=87112 avg=58147.4 std=11478 p5=51629 median=51962 p95=87112

INFO: Running benchmark for at least 1000 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=1000 first=52162 curr=49785 min=49088 max=686105 avg=63743.2 std=60716 p5=49620 median=51891 p95=68628

INFO: Inference timings in us: Init: 119515, First inference: 87112, Warmup (avg): 58147.4, Inference (avg): 63743.2
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory.
INFO: Memory footprint delta from the start of the tool (MB): init=55.4961 overall=55.4961
"""

# Of a model a thousand times as fast, for programs that print it at once: calls cannot take longer than the process.
QUICK = re.sub(
    r"(first|curr|min|max|avg|std|p5|median|p95)(=|\): )([\d.]+)",
    lambda found: f"{found[1]}{found[2]}{float(found[3]) / 1000:g}",
    MEDIANS,
)

# One warm-up call, which has no statistics, and times above a million, which have an exponent; 2020 to 2023.
MEANS = """\
STARTING!
Initialized session in 17.187ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=1 curr=3512391

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798

Inference timings in us: Init: 17187, First inference: 3512391, Warmup (avg): 3.51239e+06, Inference (avg): 2.95034e+06
Memory footprint delta from the start of the tool (MB): init=4.21094 overall=46.0859
Overall peak memory footprint (MB) via periodic monitoring: 93.2383
"""

# 2019, with a profile of the operators.
AVERAGES = """\
STARTING!
Initialized session in 38.467ms
Running benchmark for at least 1 iterations and at least 0.5 seconds
count=7 first=98432 curr=80733 min=79998 max=98432 avg=83235 std=6331

Running benchmark for at least 50 iterations and at least 1 seconds
count=50 first=79449 curr=81350 min=77385 max=88213 avg=79760.9 std=1929

Timings (microseconds): count=50 first=79449 curr=81350 min=77385 max=88213 avg=79732 std=1929
Memory (bytes): count=0
31 nodes observed


Average inference timings in us: Warmup: 83235, Init: 38467, Inference: 79760.9
"""

# 2018.
NO_STATS = """\
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=215 first=3231 curr=2106 min=2065 max=12231 avg=2331.42 std=746

Running benchmark for at least 100 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=459 first=2143 curr=2101 min=2056 max=2656 avg=2177.1 std=124

Average inference timings in us: Warmup: 2331.42, Init: 896, no stats: 2177.1
"""

# The log of Android, with line ends of a terminal.
LOGCAT = (
    "07-08 15:34:26.100 I/tflite  ( 5395): count=1 curr=2732148\r\n"
    "07-08 15:34:26.201 I/tflite  ( 5395): count=10 first=2653894 curr=2709263 min=2640862 max=3025403 avg=2.71985e+06 std=105101 "
    "p5=2640862 median=2709263 p95=3025403\r\n"
    "07-08 15:34:26.202 I/tflite  ( 5395): Inference timings in us: Init: 458883, First inference: 2732148, "
    "Warmup (avg): 2.73215e+06, Inference (avg): 2.71985e+06\r\n"
    "07-08 15:34:26.202 I/tflite  ( 5395): Memory footprint delta from the start of the tool (MB): init=286.73 overall=337\r\n"
)

# A profile alone.
PROFILE = (
    "Timings (microseconds): count=50 first=79449 curr=81350 min=77385 max=88213 avg=79732 std=1929\nMemory (bytes): count=0\n"
)

FAILURE = """\
INFO: STARTING!
INFO: Loaded model model.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
ERROR: tensorflow/lite/kernels/batch_matmul.cc:353 lhs_data->type == rhs_data->type was not true.
ERROR: Node number 57 (BATCH_MATMUL) failed to prepare.
ERROR: Failed to allocate tensors!
ERROR: Benchmarking failed.
"""
