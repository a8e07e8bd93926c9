"""The output folder of a run that never was, with everything that a report shows."""

import json

import numpy as np

from daqu_tf.data.photos import Preprocessing

WAY = Preprocessing((28, 20), "int8", source_size=(42, 30), scale=1 / 64, zero_point=-3)


def manifest(index, name=None):
    rng = np.random.default_rng(index)
    size, latency, accuracy = 45_000 + 9_000 * index, 40.0 + 12 * index, 0.945 + 0.025 * (index / 7) ** 0.5
    stages = [f"stage{1 + block // 3}.block{1 + block % 3}" for block in range(8)]
    names = [
        "stem",
        *(f"{stage}.{part}" for stage in stages for part in ("expand", "depthwise", "project")),
        "classifier",
    ]
    bits = [8, *rng.choice([2, 3, 4, 6, 8], len(names) - 2).tolist(), 8]
    return {
        "name": name or f"m{7 - index:02d}",
        "file": f"m{7 - index:02d}.tflite",
        "sha256": "ab" * 32,
        "file_bytes": size,
        "deflated_bytes": int(size * 0.7),
        "subnet": {"depth": [2, 3, 3]},
        "subnet_text": f"{index + 1}, 3, 3 blocks; kernels 3 5 3; expansion 2 4 6",
        "genome": rng.integers(0, 4, 12).tolist(),
        "layers": [
            {
                "name": layer,
                "weight_bits": each,
                "container": "INT4" if each <= 4 and "depthwise" not in layer else "INT8",
                "input_activation_bits": 8,
                "weights": int(rng.integers(100, 5000)),
            }
            for layer, each in zip(names, bits)
        ],
        "accuracy": {
            "inherited": {"search": accuracy - 0.02 - rng.random() * 0.02, "test": accuracy - 0.03},
            "fine_tuned": {"search": accuracy, "test": accuracy - 0.002},
            "file": {"test": accuracy - 0.003},
        },
        "top1_agreement": 0.998,
        "latency": {
            "median_us": latency,
            "p90_us": latency * 1.05,
            "samples_us": (latency * rng.normal(1, 0.02, 200)).tolist(),
            "device": {"kind": "host", "cpu": "AMD EPYC", "os": "Linux 6.1 x86_64"},
            "runtime": "ai-edge-litert",
            "runtime_version": "2.3.0",
            "threads": 1,
        },
        "input": {"height": 28, "width": 20, "offset": 0.0, "scale": 255.0},
        "preprocessing": WAY.to_json(),
        "class_names": ["cat", "T-shirt/top"],
        "macs": 1_000_000,
        "parameters": 50_000,
        "on_front": index != 3,
    }


def trial(index, rng):
    latency, broken = rng.uniform(35, 330), index % 25 == 0
    accuracy = 0.1 if broken else 0.96 - 3 / latency - rng.exponential(0.02)
    metrics = {
        "accuracy": accuracy,
        "latency_us": latency,
        "file_bytes": 40_000 + latency * 700,
        "deflated_bytes": 30_000,
    }
    return {"trial_id": f"{index:04d}", "status": "COMPLETED", "values": {}, "metrics": metrics, "seconds": 1.0}


def dump(path, value):
    path.write_text(json.dumps(value))


def make(tmp_path):
    """Makes up an output folder with everything in it."""
    dump(
        tmp_path / "config.json",
        {
            "flags": {"dataset": "/home/me/my images.npz", "space": "digits", "budget_minutes": 4.0, "epochs": 0.0, "schedule": ""},
            "versions": {"tensorflow": "2.21.0", "ai-edge-litert": "2.3.0"},
            "seed": 0,
            "target": "litert_cpu",
            "space": "digits",
            "dataset": {
                "name": "digits", "train": 1294, "search": 144, "test": 359, "test_was_cut": True, "num_classes": 10,
            },
            "cardinality": {"nominal": "1.2e+15", "effective": "3.4e+12"},
        },
    )  # fmt: skip
    names = {"accuracy": "max", "latency_us": "min", "file_bytes": "min", "deflated_bytes": "min"}
    pareto = {
        "space": "digits",
        "target": "litert_cpu",
        "objectives": [{"name": name, "direction": direction} for name, direction in names.items()],
        "members": [manifest(index) for index in range(8)],
    }
    dump(tmp_path / "pareto.json", pareto)
    (tmp_path / "search").mkdir()
    (tmp_path / "models").mkdir()
    rng = np.random.default_rng(0)
    lines = [{"format": 1, "identity": {}}, *(trial(index, rng) for index in range(150))]
    failed = {"trial_id": "x", "status": "FAILED", "values": {}, "metrics": {}, "seconds": 1}
    text = "".join(json.dumps(line) + "\n" for line in [*lines, failed])
    (tmp_path / "search" / "trials.jsonl").write_text(text + '{"trial_id": "cut sho')
    rows = ["phase,epoch,step,minutes,loss,learning_rate,accuracy_largest,accuracy_smallest,accuracy_mean"]
    for epoch in range(30):
        phase = "warm_up" if epoch < 12 else "precision_transfer"
        gain = 1 - np.exp(-epoch / 6)
        scores = f"{0.3 + 0.66 * gain},{0.2 + 0.7 * gain},{0.25 + 0.69 * gain}" if epoch % 3 == 0 else ",,"
        rows.append(f"{phase},{epoch},{epoch * 20},{epoch * 0.1},{2.3 - 2 * gain},0.01,{scores}")
    (tmp_path / "training.csv").write_text("\n".join(rows) + "\n")
    stages = {"data": 1.2, "warm_up": 70.1, "precision_transfer": 81.0, "search": 66.5, "fine_tuning": 30.0}
    dump(tmp_path / "timeline.json", [{"stage": stage, "seconds": seconds} for stage, seconds in stages.items()])
    return tmp_path


def make_with_models(folder):
    """Makes up an output folder in which the eight models lie too, faster and less accurate from m00 to m07; m04 is dominated."""
    folder.mkdir(parents=True, exist_ok=True)
    make(folder)
    for index in range(8):
        (folder / "models" / f"m{index:02d}.tflite").write_bytes(b"model %d" % index)
        (folder / "models" / f"m{index:02d}.manifest.json").write_text(f'{{"name": "m{index:02d}"}}')
    return folder
