"""Which containers each runtime takes, whether XNNPACK takes the whole file, and whether the outputs are this machine's.

    python benchmarks/containers.py

One small network of inverted residual blocks with weights of 2 bits, which every container holds, is written in each container, and
run by each runtime in a process of its own: LiteRT 2.3, tflite-runtime, and older LiteRT on x86, which are unpacked beside this
run's files; with --arm_root, which `tests/devices/arm_root.py` makes, on real ARM kernels under qemu too. Nothing is timed.

From it come the targets that `targets.for_device` chooses.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import records
from absl import app, flags

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = pathlib.Path(__file__).parent
sys.path.append(str(HERE.parent / "tests" / "helpers"))  # Networks and images of the tests.
OLDER = ("2.0.3", "1.4.0", "1.3.0", "1.2.0")  # Of LiteRT; those before are of NumPy 1.
UNSUPPORTED = ("1.3.0", "1.2.0")
PLATFORMS = ("manylinux_2_34_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
IMAGES, REFUSED = 8, 3  # The second is a status of `container_run.py`.

_ARM_ROOT = flags.DEFINE_string("arm_root", None, "Folder with Pythons for ARM, such as .arm; without it there is x86 alone.")
_OLD_PYTHON = flags.DEFINE_string("old_python", ".venv-tflite-runtime/bin/python", "A Python that has tflite-runtime.")
_FOLDER = flags.DEFINE_string("folder", "runs/containers", "For files and runtimes; the command goes on from there.")
_QUICK = flags.DEFINE_bool("quick", False, "The installed LiteRT alone.")


def files() -> dict[str, tuple[bytes, np.ndarray]]:
    """By container: the file, and inputs in its own type, shape (IMAGES, H, W, C)."""
    import tflite_forms
    from families import FAMILIES, smooth_images
    from family_supernets import family_supernet

    from daqu_tf import export, targets, tflite
    from daqu_tf.export.export import to_graph
    from daqu_tf.supernet.layers import quantize_input

    (supernet, _), space = family_supernet("inverted_residual"), FAMILIES["inverted_residual"]
    network, images = supernet.extract(space.largest().with_bits(2, 8)), smooth_images(space, IMAGES)
    network(images, training=True, statistics_rate=1.0)
    export.round_biases(network)
    written = {each: tflite.write(to_graph(network, targets.Storage(each))) for each in targets.CONTAINERS}
    real = quantize_input(images).numpy().astype(np.float32)
    codes = (np.round(real * 255) - 128).astype(np.int8)
    found = {
        "INT8": (written["int8"], codes),
        "INT4 FULLY_CONNECTED": (written["auto"], codes),
        "INT4 CONV_2D": _form(written["int8"], codes, tflite_forms.FORMS[5]),
        "INT4 DEPTHWISE_CONV_2D": _form(written["int8"], codes, tflite_forms.FORMS[6]),
        "INT2 FULLY_CONNECTED": _form(written["int8"], codes, tflite_forms.TWO_BITS[1]),
        "INT2 CONV_2D": _form(written["int8"], codes, tflite_forms.TWO_BITS[2]),
    }
    return (
        found | {name: (written[name.lower()], real) for name in ("FLOAT32", "FLOAT16")} | {"dynamic": (written["dynamic"], real)}
    )


def _form(file: bytes, codes: np.ndarray, form) -> tuple[bytes, np.ndarray]:
    import tflite_forms

    return tflite_forms.rewritten(file, form), codes


def runtimes(folder: pathlib.Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """By name: the command that is a Python with that runtime, and what to add to its environment."""
    found = {"LiteRT 2.3.0, x86": ([sys.executable], {})}
    if _QUICK.value:
        return found
    for version in OLDER:
        place = _unpacked(folder / f"x86_{version}", version)
        found[f"LiteRT {version}, x86"] = [sys.executable], {"PYTHONPATH": str(place)}
    found["tflite-runtime 2.14.0, x86"] = [_OLD_PYTHON.value], {}
    if _ARM_ROOT.value:
        root = pathlib.Path(_ARM_ROOT.value).resolve()
        found["tflite-runtime 2.14.0, ARM"] = [str(root / "tflite-runtime/python")], {}
        debian = root / "debian"
        python = [str(debian / "usr/bin/qemu-aarch64-static"), "-L", str(debian), str(debian / "usr/bin/python3.11")]
        for version in OLDER:
            place = _unpacked(folder / f"arm_{version}", version, PLATFORMS)
            found[f"LiteRT {version}, ARM"] = python, {"PYTHONPATH": f"{place}:{root / 'ai-edge-litert'}"}  # NumPy is there.
    return dict(sorted(found.items(), key=lambda item: item[0] != "LiteRT 2.3.0, x86"))  # The one that is compared with, first.


def _unpacked(folder: pathlib.Path, version: str, platforms: tuple[str, ...] = ()) -> pathlib.Path:
    """The wheel of a LiteRT, without what it requires, unpacked once."""
    if not (folder / "ai_edge_litert").exists():
        where = [flag for platform in platforms for flag in ("--platform", platform)]
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
        command = [*pip, *where, "--python-version=311", f"--target={folder}", f"ai-edge-litert=={version}"]
        subprocess.run(command if platforms else [part for part in command if "python-version" not in part], check=True)
    return folder.resolve()


def run(python: tuple[list[str], dict[str, str]], model: pathlib.Path, inputs: pathlib.Path) -> tuple[dict, np.ndarray | None]:
    """What a runtime says of a file, and its outputs, or the reason that it gives for refusing it."""
    command, added = python
    outputs = model.with_suffix(".outputs.npy")
    outputs.unlink(missing_ok=True)
    done = subprocess.run(
        [*command, str(HERE / "container_run.py"), str(model), str(inputs), str(outputs)],
        capture_output=True,
        text=True,
        env=os.environ | added,
    )
    if done.returncode == REFUSED:
        return {"refused": done.stderr.splitlines()[-1][:200]}, None
    if done.returncode < 0 or done.returncode > 128:
        return {"crashed": f"signal {-done.returncode if done.returncode < 0 else done.returncode - 128}"}, None
    if done.returncode:
        sys.exit(f"{command[0]} failed: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1]), np.load(outputs)


def apart(found: np.ndarray, expected: np.ndarray) -> str:
    """How far outputs are from those of the installed LiteRT, in words."""
    difference = np.abs(found.astype(float) - expected.astype(float))
    if not difference.any():
        return "equal"
    if found.dtype.kind != "f":
        return f"up to {difference.max():.0f} steps, {difference.mean():.2f} on average"
    return f"up to {difference.max() / np.ptp(expected):.1e} of the range"


def measure(folder: pathlib.Path) -> dict[str, dict[str, dict]]:
    """By runtime and container: whether it runs, what is delegated, and how far the outputs are from this machine's LiteRT."""
    known, found, expected = files(), {}, {}
    for number, (file, inputs) in enumerate(known.values()):
        (folder / f"{number}.tflite").write_bytes(file)
        np.save(folder / f"{number}.npy", inputs)
    for name, python in runtimes(folder).items():
        found[name] = {}
        for number, container in enumerate(known):
            said, outputs = run(python, folder / f"{number}.tflite", folder / f"{number}.npy")
            if outputs is not None:
                expected.setdefault(container, outputs)
                said["outputs"] = apart(outputs, expected[container])
            found[name][container] = said
            print(f"{name}: {container}: {words(said)}", flush=True)
    return found


def words(said: dict) -> str:
    """A cell of the table."""
    if "delegated" not in said:
        return next(iter(said))
    delegates = {"wholly": "XNNPACK", "in part": "XNNPACK in part", "not": "built-in kernels"}[said["delegated"]]
    return f"{delegates}; {said['outputs']}"


def claims(name: str, found: dict[str, dict]) -> list[dict]:
    """What the exporter counts on: which containers the runtime takes, and that INT8 and INT4 are computed as here."""
    if name.startswith("tflite-runtime"):
        taken = sum("delegated" in found[container] for container in ("INT8", "FLOAT32", "FLOAT16"))
        return [records.bar(f"{name}: containers of `tflite_runtime` that it takes", taken, 3, "at_least", "containers")]
    taken = sum("delegated" in found[container] for container in ("INT8", "INT4 FULLY_CONNECTED", "FLOAT32", "FLOAT16", "dynamic"))
    same = sum(words(found[container]) == "XNNPACK; equal" for container in ("INT8", "INT4 FULLY_CONNECTED"))
    return [
        records.bar(f"{name}: containers of `litert` that it takes", taken, 5, "at_least", "containers"),
        records.bar(f"{name}: INT8 and INT4 wholly in XNNPACK, with equal outputs", same, 2, "at_least", "containers"),
    ]


def main(_) -> None:
    """Writes `results/containers.json`."""
    folder = pathlib.Path(_FOLDER.value)
    folder.mkdir(parents=True, exist_ok=True)
    found = measure(folder)
    containers = list(next(iter(found.values())))
    table = {
        "caption": "Which containers runtimes take, what computes them, and how far the outputs are from LiteRT 2.3.0 on x86",
        "columns": ["container", *found],
        "rows": [[container, *(words(found[name][container]) for name in found)] for container in containers],
    }
    bars = [
        each
        for name, by_container in found.items()
        if not name.split()[1].startswith(UNSUPPORTED)
        for each in claims(name, by_container)
    ]
    name = "containers_quick" if _QUICK.value else "containers"
    print(records.write(name, [0], {"tables": [table], "runtimes": found}, bars))


if __name__ == "__main__":
    app.run(main)
