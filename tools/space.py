"""Prints a search space: its choices, the exact number of subnets, and what its ends cost.

daqu-space --space=mobilenet_v2_28
"""

import decimal
import json

from absl import flags

from daqu_tf import costs, spaces, targets
from daqu_tf.tools import command

_SPACE = flags.DEFINE_string("space", "mobilenet_v2_28", f"Search space: {', '.join(spaces.SPACES)}, or a .json file.")
_TARGET = flags.DEFINE_string("target", "litert_cpu", f"What the networks are for: {', '.join(targets.TARGETS)}.")
_JSON = flags.DEFINE_bool("json", False, "Print the space as JSON, to be changed and given as --space.")


def _print_space(argv: list[str]) -> None:
    del argv
    space, target = spaces.get(_SPACE.value), targets.get(_TARGET.value)
    if _JSON.value:
        print(json.dumps(space.to_json(), indent=1))
        return
    effective = target.restrict(space)
    longest = max(len(gene.name) for gene in space.genes)
    for gene in space.genes:
        print(f"{gene.name:<{longest}} {', '.join(map(str, gene.values))}")
    # As decimals: a float ends at 1e308.
    nominal, differing = map(decimal.Decimal, (space.cardinality, effective.cardinality))
    print(f"\n{nominal:.3e} subnets, {nominal} exactly")
    print(f"{differing:.3e} of them differ on {target.name}, {differing} exactly\n")
    ends = (effective.smallest(), effective.largest())
    figures = costs.of_many(effective, [effective.genome(subnet) for subnet in ends], target)
    print(f"{'at the highest bits':<22} {'smallest':>16} {'largest':>16}")
    for name, (smallest, largest) in figures.items():
        print(f"{name.replace('_', ' '):<22} {smallest:>16,.0f} {largest:>16,.0f}")


def main() -> None:
    """The console script."""
    command.main(_print_space, __doc__, modules=(__name__,))


if __name__ == "__main__":
    main()
