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

# The same of LiteRT 2: the same statistics, another end.
LITERT = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: [benchmark_litert_model.cc:207] Loading model from: model.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 31 out of 31 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for subgraph 0.
INFO: The input model file size (MB): 16.9008
INFO: Initialized session in 12.75ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=37 first=14744 curr=15520 min=13164 max=18295 avg=13764.3 std=967 p5=13180 median=13499 p95=15901

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=74 first=14850 curr=13315 min=13105 max=15765 avg=13520.2 std=470 p5=13122 median=13401 p95=14420

INFO: [benchmark_litert_model.h:80]
========== BENCHMARK RESULTS ==========
INFO: [benchmark_litert_model.h:81] Model initialization: 12.75 ms
INFO: [benchmark_litert_model.h:82] Warmup (first):       14.74 ms
INFO: [benchmark_litert_model.h:84] Warmup (avg):         13.76 ms (37 runs)
INFO: [benchmark_litert_model.h:86] Inference (avg):      13.52 ms (74 runs)
INFO: [benchmark_litert_model.h:90] Inference (min):      13.10 ms
INFO: [benchmark_litert_model.h:92] Inference (max):      15.77 ms
INFO: [benchmark_litert_model.h:94] Inference (std):      0.47
INFO: [benchmark_litert_model.h:103] Throughput:           44.53 MB/s
INFO: [benchmark_litert_model.h:112]
Memory Usage:
INFO: [benchmark_litert_model.h:114] Init footprint:       25.60 MB
INFO: [benchmark_litert_model.h:116] Overall footprint:    32.40 MB
INFO: [benchmark_litert_model.h:121] Peak memory:          35.20 MB
INFO: [benchmark_litert_model.h:126] ======================================

"""

# What they answer to --help, shortened: TFLite's, which fails, and LiteRT 2's, which does not.
TFLITE_HELP = """\
INFO: STARTING!
ERROR: usage: /data/local/tmp/benchmark_model <flags>
Flags:
\t--num_runs=50                 \tint32\toptional\texpected number of runs, see also min_secs, max_secs
\t--min_secs=1                  \tfloat\toptional\tminimum number of seconds to rerun for
\t--num_threads=-1              \tint32\toptional\tnumber of threads
\t--warmup_runs=1               \tint32\toptional\tminimum number of runs performed on initialization
\t--warmup_min_secs=0.5         \tfloat\toptional\tminimum number of seconds to rerun for
\t--graph=                      \tstring\toptional\tgraph file name
\t--input_layer=                \tstring\toptional\tinput layer names
\t--input_layer_shape=          \tstring\toptional\tinput layer shape
\t--input_layer_value_files=    \tstring\toptional\tA map-like string representing value file
\t--output_filepath=            \tstring\toptional\tPath to save the output tensors
\t--use_gpu=false               \tbool\toptional\tuse gpu
\t--use_nnapi=false             \tbool\toptional\tuse nnapi delegate api
\t--use_xnnpack=false           \tbool\toptional\texplicitly apply the XNNPACK delegate

ERROR: Benchmarking failed.
"""
LITERT_HELP = """\

  NPU Vendor Flags from LiteRT:
    --mediatek_neron_sdk_version_type (Version of the SDK); default: version8;

INFO: STARTING!
ERROR: usage: /data/local/tmp/benchmark_model <flags>
Flags:
\t--num_runs=50                 \tint32\toptional\texpected number of runs, see also min_secs, max_secs
\t--min_secs=1                  \tfloat\toptional\tminimum number of seconds to rerun for
\t--num_threads=-1              \tint32\toptional\tnumber of threads
\t--warmup_runs=1               \tint32\toptional\tminimum number of runs performed on initialization
\t--warmup_min_secs=0.5         \tfloat\toptional\tminimum number of seconds to rerun for
\t--graph=                      \tstring\toptional\tThe path to the model file.
\t--signature_to_run_for=       \tstring\toptional\tThe signature to run for.
\t--use_cpu=true                \tbool\toptional\tWhether to use CPU accelerator.
\t--use_gpu=false               \tbool\toptional\tWhether to use GPU accelerator.
\t--use_npu=false               \tbool\toptional\tWhether to use NPU accelerator.

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
