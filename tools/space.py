"""Prints a search space: its choices, the exact number of subnets, and what its ends cost.

daqu-space --space=mobilenet_v2_28
"""

from absl import flags

from daqu_tf import costs, spaces, targets
from daqu_tf.tools import command

_SPACE = flags.DEFINE_string("space", "mobilenet_v2_28", f"Search space: {', '.join(spaces.SPACES)}.")
_TARGET = flags.DEFINE_string("target", "litert_cpu", f"What the networks are for: {', '.join(targets.TARGETS)}.")


def _print_space(argv: list[str]) -> None:
    del argv
    space, target = spaces.get(_SPACE.value), targets.get(_TARGET.value)
    effective = target.restrict(space)
    for gene in space.genes:
        print(f"{gene.name:<34} {', '.join(map(str, gene.values))}")
    print(f"\n{space.cardinality:.3e} subnets, {space.cardinality} exactly")
    print(f"{effective.cardinality:.3e} of them differ on {target.name}")
    print(f"\n{'':<10} {'parameters':>12} {'MACs':>12} {'BitOPs':>14}")
    for name in ("smallest", "largest"):
        subnet = getattr(effective, name)()
        figures = (costs.parameters(space, subnet), costs.macs(space, subnet), costs.bitops(space, subnet))
        print(f"{name:<10} {figures[0]:>12,} {figures[1]:>12,} {figures[2]:>14,}")


def main() -> None:
    """The console script."""
    command.main(_print_space, __doc__, modules=(__name__,))


if __name__ == "__main__":
    main()
