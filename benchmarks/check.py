"""Prints every bar of every benchmark with its value, and fails if one falls short.

python benchmarks/check.py
python benchmarks/check.py --write_readme
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
INTRODUCTION = """# Benchmarks

Each script runs alone (`python benchmarks/NAME.py --help`), has a `--quick` form, goes on where it was cut off, and writes
`results/NAME.json` with its command, commit, machine, versions and seeds. This page is generated from those files by
`python benchmarks/check.py --write_readme`; a bar that is missed stays in it.

| benchmark | bar | value | limit | |
|---|---|---|---|---|
"""


def bars() -> list[tuple[str, dict, bool]]:
    """Benchmark, bar, and whether it is met."""
    found = []
    for path in sorted((HERE / "results").glob("*.json")):
        for bar in json.loads(path.read_text())["bars"]:
            met = bar["value"] <= bar["limit"] if bar["direction"] == "at_most" else bar["value"] >= bar["limit"]
            found.append((path.stem, bar, met))
    return found


def write_readme() -> None:
    """Writes `benchmarks/README.md`."""
    rows = [
        f"| `{name}` | {bar['name']} | {bar['value']:.4g} {bar['unit']} | {bar['direction'].replace('_', ' ')} {bar['limit']:.4g} "
        f"| {'met' if met else '**missed**'} |"
        for name, bar, met in bars()
    ]
    (HERE / "README.md").write_text(INTRODUCTION + "\n".join(rows) + "\n" + "".join(sections()))


def sections() -> list[str]:
    """Tables and picture of every benchmark that has them."""
    found = []
    for path in sorted((HERE / "results").glob("*.json")):
        results = json.loads(path.read_text())["results"]
        if not isinstance(results, dict) or "tables" not in results:
            continue
        found.append(f"\n## {path.stem}\n")
        for table in results["tables"]:
            lines = [table["columns"], ["---"] * len(table["columns"]), *table["rows"]]
            found.append(f"\n{table['caption']}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
        if "picture" in results:
            found.append(f"\n![{path.stem}]({results['picture']})\n")
    return found


def main() -> None:
    """Reads `results/*.json`."""
    if "--write_readme" in sys.argv[1:]:
        write_readme()
    for name, bar, met in bars():
        sign = "<=" if bar["direction"] == "at_most" else ">="
        values = f"{bar['value']:.4g} {sign} {bar['limit']:.4g} {bar['unit']}"
        print(f"{'met   ' if met else 'MISSED'} {name}: {bar['name']}: {values}")
    sys.exit(not all(met for _, _, met in bars()))


if __name__ == "__main__":
    main()
