"""Packaging. `constraints.txt` pins the versions known to work together; here are ranges."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "daqu_tf" / "__init__.py").read_text())[1]
INSTALL = [
    # TensorFlow, tf_keras and TensorBoard belong together, version by version: whoever pins TensorFlow gets the others that fit.
    # The seeds of tf_keras before 2.19 are none for Python 3.12 and later.
    "tensorflow>=2.16,<2.22; python_version<'3.12'",
    "tensorflow>=2.19,<2.22; python_version>='3.12'",
    "tf_keras>=2.16,<2.22; python_version<'3.12'",
    "tf_keras>=2.19,<2.22; python_version>='3.12'",
    "tensorflow-model-optimization>=0.8.1,<0.9",
    # `ParetoOracle` and `DaquTuner` override KerasTuner's internals.
    "keras-tuner>=1.4.8,<1.5",
    "ai-edge-litert>=2.3,<3",
    "flatbuffers>=24.3",
    "numpy>=1.26",
    "absl-py>=1.4",
    "scikit-learn>=1.5",
    "scipy>=1.11",
    "matplotlib>=3.8",
    "pillow>=10.1",
    "tensorboard>=2.16,<2.22",
]
EXTRAS = {
    "test": ["pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "ruff>=0.12", "mypy>=2"],
    "benchmarks": ["optuna>=4", "pymoo>=0.6.1,<0.7"],
    "docs": [
        "mkdocs>=1.6,<2",
        "mkdocs-material>=9.7,<10",
        "mkdocstrings[python]>=1.0,<2",
        # From 12 on it takes a newer mkdocstrings than there is for Python 3.10.
        "pymdown-extensions<12; python_version<'3.11'",
    ],
    # The last release was built for NumPy 1 and for Python up to 3.11.
    "tflite_runtime": ["tflite-runtime==2.14.0; python_version<'3.12'", "numpy<2; python_version<'3.12'"],
}
TOOLS = ["run", "train", "search", "export", "benchmark", "profile", "report", "choose", "space", "predict", "verify_models"]

setup(
    name="daqu_tf",
    version=VERSION,
    description="Searches network architecture and per-layer precision together; gives a Pareto set of .tflite files.",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    packages=[*find_packages(include=["daqu_tf", "daqu_tf.*"]), "daqu_tf.tools"],
    # `tools/` lies beside the library and installs inside it: no top-level `tools` in site-packages.
    package_dir={"daqu_tf": "daqu_tf", "daqu_tf.tools": "tools"},
    package_data={"daqu_tf": ["py.typed"], "daqu_tf.report": ["explorer.css", "explorer.js"]},
    install_requires=INSTALL,
    extras_require=EXTRAS,
    entry_points={"console_scripts": [f"daqu-{tool.replace('_', '-')} = daqu_tf.tools.{tool}:main" for tool in TOOLS]},
    zip_safe=False,
)
