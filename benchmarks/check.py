"""Prints every bar of every benchmark with its value, and fails if one falls short.

python benchmarks/check.py
"""

import json
import pathlib
import sys


def main() -> None:
    """Reads `results/*.json`."""
    missed = 0
    for path in sorted((pathlib.Path(__file__).parent / "results").glob("*.json")):
        for bar in json.loads(path.read_text())["bars"]:
            met = bar["value"] <= bar["limit"] if bar["direction"] == "at_most" else bar["value"] >= bar["limit"]
            missed += not met
            sign = "<=" if bar["direction"] == "at_most" else ">="
            values = f"{bar['value']:.4g} {sign} {bar['limit']:.4g} {bar['unit']}"
            print(f"{'met   ' if met else 'MISSED'} {path.stem}: {bar['name']}: {values}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
