"""Prints a search space: its choices, the exact number of subnets, and the costs of the smallest and the largest.

daqu-space --space=resnet
"""

import decimal
import json
from collections.abc import Iterable

from absl import flags

from daqu_tf import spaces, targets
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.targets import costs
from daqu_tf.tools import command

_SPACE = flags.DEFINE_string("space", "resnet", f"The search space: {', '.join(spaces.SPACES)}, or a .json file.")
_TARGET = flags.DEFINE_string(
    "target", "litert_cpu", f"The target, which says what the networks are for: {', '.join(targets.TARGETS)}."
)
_GENES = flags.DEFINE_bool(
    "genes", False, "Also list every gene by the name that it has in subnets, hyperparameters and `restrict`."
)
_JSON = flags.DEFINE_bool("json", False, "Print the space as JSON, which can be changed and given as --space.")


def _print_space(argv: list[str]) -> None:
    del argv
    space, target = spaces.get(_SPACE.value), targets.get(_TARGET.value)
    if _JSON.value:
        print(json.dumps(space.to_json(), indent=1))
        return
    effective = target.restrict(space)
    print(_describe(space))
    if _GENES.value:
        print("", *(f"{gene.name}: {_list(gene.values)}" for gene in space.genes), sep="\n")
    # The numbers are decimals, since a float ends at 1e308.
    nominal, differing = map(decimal.Decimal, (space.cardinality, effective.cardinality))
    print(f"\n{nominal:.3e} subnets, {nominal} exactly")
    print(f"{differing:.3e} of them differ on {target.name}, {differing} exactly\n")
    ends = (effective.smallest(), effective.largest())
    figures = costs.of_many(effective, effective.genomes([subnet.values for subnet in ends]), target)
    print(f"{'at the highest bits':<22} {'smallest':>16} {'largest':>16}")
    for name, (smallest, largest) in figures.items():
        print(f"{name.replace('_', ' '):<22} {smallest:>16,.0f} {largest:>16,.0f}")


def _describe(space: SearchSpace) -> str:
    """The choices as a table with a row for each stage; genes that were narrowed one by one are listed below it."""
    height, width, channels = space.input_shape
    rows = [["", "blocks", "width", "depth", "kernel", "expansion", "stride", "activation"]]
    rows.append(["stem", "convolution", _list(space.stem_widths), "", "3", "", str(space.stem_stride), space.activation])
    for number, stage in enumerate(space.stages, 1):
        kind = stage.block.replace("_", " ") + ", squeeze-excite" * stage.squeeze_excite
        choices = map(_list, (stage.widths or ("kept",), stage.depths, stage.kernels, stage.expansions))
        rows.append([f"stage{number}", kind, *choices, str(stage.stride), stage.activation])
    if space.head_widths:
        rows.append(["head", "pointwise", _list(space.head_widths), "", "1", "", "1", space.activation])
    sizes = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(size) for cell, size in zip(row, sizes)).rstrip() for row in rows]
    for kind, alphabet in (("weight", space.weight_bits), ("activation", space.activation_bits)):
        count = sum(gene.name.endswith(f"{kind}_bits") for gene in space.genes)
        lines.append(f"{_list(alphabet)} bits for each of {count} {kind} tensors" if count else f"8 bits for every {kind}")
    lines += [f"{name}: only {_list(values)}" for name, values in space.narrowed]
    images = f"images of {height}x{width}x{channels} at heights {_list(space.genes[0].values)}; {space.num_classes} classes"
    return "\n".join([f"{space.name}: {images}", "", *lines])


def _list(values: Iterable[int | str]) -> str:
    return ", ".join(map(str, values))


def main() -> None:
    """The console script."""
    command.main(_print_space, __doc__, modules=(__name__,))


if __name__ == "__main__":
    main()
