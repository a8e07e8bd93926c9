"""What a subnet costs, from its layers alone, without building anything."""

from daqu_tf.space import SearchSpace, Subnet


def macs(space: SearchSpace, subnet: Subnet) -> int:
    """Multiply-accumulates of one image."""
    return sum(layer.weights * layer.output_size[0] * layer.output_size[1] for layer in space.layers(subnet))


def parameters(space: SearchSpace, subnet: Subnet) -> int:
    """Kernel weights and one bias per output channel, as in the file, where batch normalization is folded."""
    return sum(layer.weights + layer.output_channels for layer in space.layers(subnet))


def bitops(space: SearchSpace, subnet: Subnet) -> int:
    """MACs x weight bits x input activation bits."""
    return sum(
        layer.weights * layer.output_size[0] * layer.output_size[1] * layer.weight_bits * layer.input_bits
        for layer in space.layers(subnet)
    )
