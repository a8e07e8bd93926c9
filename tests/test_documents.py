"""What the documents show runs as it stands."""

import pathlib
import re
import subprocess
import sys

import pytest

README = pathlib.Path(__file__).parent.parent / "README.md"
# The one that runs a whole job for an hour is the demo's in small.
BLOCKS = [block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "RunConfig" not in block]


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_python_example_of_the_readme(block, tmp_path):
    subprocess.run([sys.executable, "-c", block], check=True, cwd=tmp_path)
