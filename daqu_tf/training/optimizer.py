"""The optimizer of supernet and subnets, which is AdamW for weights and another Adam for the logarithms of quantizer steps."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from daqu_tf.supernet.replicas import replica_part, replicas, sum_over_replicas
from daqu_tf.supernet.supernet import Network
from daqu_tf.training.schedule import STEP_RATE

WEIGHT_DECAY, CLIP_NORM, BETAS = 0.1, 5.0, (0.9, 0.999)
FIRST_SCALE, LEAST_SCALE, MOST_SCALE = 2.0**15, 1.0, 2.0**24  # Scales of the loss; gradients in float16 are 6e-8 to 65504.
GROWTH_STEPS = 2000  # So many finite steps in a row double the scale, as in Keras.


class Optimizer:
    """Sums gradients over the subnets of a step, then moves weights by AdamW and log steps by another Adam.

    All variables are one flat vector here, since an update of a hundred small variables one by one takes a fifth of a step's time
    (ours). AdamW is that of Loshchilov and Hutter (ICLR 2019), with gradients clipped by their global norm.

    It works under the strategy in whose scope the network was made. With several replicas, each takes its part of the batch, and
    one sum over replicas in each step gives the gradient of the whole batch. The loss of a float16 network is scaled (Micikevicius
    et al., ICLR 2018) as far as its gradients allow.

    Args:
        network: The network to train.
        learning_rate: The peak learning rate of the weights.
        step_rate: The peak learning rate of the log steps.

    Attributes:
        accumulate: Adds the gradients of the active subnet, given the images (count, height, width, channels) and the class
            probabilities (count, classes) of this worker. It returns the loss over the images of all workers, and the logits
            (count, classes) of these images.
    """

    def __init__(self, network: Network, learning_rate: float, step_rate: float = STEP_RATE):
        self._network, self._strategy = network, network.distribute_strategy
        is_step = {v.ref(): "log_step" in v.name for v in network.trainable_variables}
        self._variables = sorted(network.trainable_variables, key=lambda v: is_step[v.ref()])
        self._sizes = [int(np.prod(v.shape)) for v in self._variables]
        self._weights = sum(size for v, size in zip(self._variables, self._sizes) if not is_step[v.ref()])
        rates = [step_rate if is_step[v.ref()] else learning_rate for v in self._variables]
        decays = [WEIGHT_DECAY * learning_rate if v.name.endswith("kernel:0") else 0.0 for v in self._variables]
        self._rate, self._decay = (tf.constant(np.repeat(x, self._sizes), tf.float32) for x in (rates, decays))
        self._is_scaled = network.mixed_precision == "float16"
        with self._strategy.scope():
            self._create_variables()
        shape = [None, *network.space.input_shape]
        signature = [tf.TensorSpec(shape), tf.TensorSpec([None, network.space.num_classes])]
        self.accumulate = tf.function(self._accumulate, input_signature=signature, autograph=False)
        self._apply = tf.function(self._update, input_signature=[tf.TensorSpec([])], autograph=False)

    def _create_variables(self) -> None:
        options = {"synchronization": tf.VariableSynchronization.ON_READ, "aggregation": tf.VariableAggregation.SUM}
        self.gradient = tf.Variable(tf.zeros_like(self._rate), trainable=False, **options)  # Each replica has its own.
        self.mean, self.square, self._direction = (tf.Variable(tf.zeros_like(self._rate), trainable=False) for _ in range(3))
        # Each element has its own count of updates, so that bits that open late begin like those that were open from the start.
        self.updates = tf.Variable(tf.zeros_like(self._rate), trainable=False)
        if self._is_scaled:
            self.scale, self.finite_steps = (tf.Variable(value, trainable=False) for value in (FIRST_SCALE, 0.0))

    @property
    def state(self) -> dict[str, tf.Variable]:
        """The variables by name that a checkpoint must hold beside the network."""
        names = ["mean", "square", "updates", *(("scale", "finite_steps") if self._is_scaled else ())]
        return {name: getattr(self, name) for name in names}

    def arrays(self) -> dict[str, np.ndarray]:
        """A copy of the variables in `state`, by name."""
        return {name: variable.numpy() for name, variable in self.state.items()}

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Sets the variables in `state`, the inverse of `arrays`."""
        for name, variable in self.state.items():
            variable.assign(arrays[name])

    def _accumulate(self, images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The function behind `accumulate`, before it is traced."""
        losses, logits = self._strategy.run(self._accumulate_part, (images, targets))
        losses, logits = map(self._strategy.experimental_local_results, (losses, logits))
        return losses[0], logits[0] if len(logits) == 1 else tf.concat(logits, 0)

    def _accumulate_part(self, images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, targets = (replica_part(self._strategy, x) for x in (images, targets))
        with tf.GradientTape() as tape:
            logits = self._network(images, training=True)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
            loss = loss / replicas() if replicas() > 1 else loss
            scaled = loss * self.scale.read_value() if self._is_scaled else loss
        # A subnet does not use all variables.
        gradients = tape.gradient(scaled, self._variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        loss = sum_over_replicas(loss, "loss")
        with tf.control_dependencies([loss]):  # Only one replica's loss is returned, but all must take part in the sum.
            _add(self.gradient, _flat(gradients))
        return loss, logits

    def _update(self, factor: tf.Tensor) -> tf.Tensor:
        return self._strategy.experimental_local_results(self._strategy.run(self._update_replica, (factor,)))[0]

    def _update_replica(self, factor: tf.Tensor) -> tf.Tensor:
        """Moves the variables of one replica, by their handles, since tf.distribute does not let replicas write."""
        gradient = sum_over_replicas(self.gradient.read_value(), "gradient")
        gradient = gradient / self.scale.read_value() if self._is_scaled else gradient
        finite = tf.reduce_all(tf.math.is_finite(gradient))
        # One bad batch must not end hours of training, so nothing moves then.
        tf.cond(finite, lambda: self._move(gradient, factor), tf.no_op)
        if self._is_scaled:
            self._adapt_scale(finite)
        _set(self.gradient, tf.zeros_like(gradient))
        return finite

    def _move(self, gradient: tf.Tensor, factor: tf.Tensor) -> tf.Operation:
        norm = tf.norm(gradient[: self._weights])
        weights = gradient[: self._weights] * (CLIP_NORM / tf.maximum(norm, CLIP_NORM))
        gradient = tf.concat([weights, gradient[self._weights :]], 0)
        change = self._rate * self._adam(gradient) - self._decay * _flat(self._variables)
        parts = zip(self._variables, tf.split(factor * change, self._sizes))
        return tf.group(*(_add(variable, tf.reshape(part, variable.shape)) for variable, part in parts))

    def _adam(self, gradient: tf.Tensor) -> tf.Tensor:
        """The step of Adam at a learning rate of 1, by TensorFlow's fused kernel on zeros and a correction of its bias."""
        _set(self._direction, tf.zeros_like(gradient))
        tf.raw_ops.ResourceApplyAdam(
            var=self._direction.handle,
            m=self.mean.handle,
            v=self.square.handle,
            beta1_power=0.0,
            beta2_power=0.0,
            lr=1.0,
            beta1=BETAS[0],
            beta2=BETAS[1],
            epsilon=1e-7,
            grad=gradient,
        )
        _add(self.updates, tf.cast(self.square.read_value() > 0, tf.float32))
        updates = tf.maximum(self.updates.read_value(), 1.0)
        mean_bias, square_bias = (1.0 - tf.exp(updates * math.log(beta)) for beta in BETAS)
        return self._direction.read_value() * tf.sqrt(square_bias) / mean_bias

    def _adapt_scale(self, finite: tf.Tensor) -> None:
        """Doubles the scale of the loss after `GROWTH_STEPS` finite steps, and halves it after one that is not."""
        scale, steps = self.scale.read_value(), self.finite_steps.read_value() + 1.0
        grown = tf.where(steps >= GROWTH_STEPS, tf.minimum(scale * 2.0, MOST_SCALE), scale)
        _set(self.scale, tf.where(finite, grown, tf.maximum(scale / 2.0, LEAST_SCALE)))
        _set(self.finite_steps, tf.where(finite & (steps < GROWTH_STEPS), steps, 0.0))

    def apply(self, factor: float) -> bool:
        """Moves the variables by the sum of gradients, and sets the sum to zero.

        Args:
            factor: The factor of the peak learning rates, in [0, 1].

        Returns:
            False if gradients were not finite and nothing moved. In float16, the scale of the loss is halved first, which does not
            count as failure as long as it can help.
        """
        lowest = not self._is_scaled or float(self.scale.read_value()) <= LEAST_SCALE
        return bool(self._apply(factor)) or not lowest


def cosine(done: float) -> float:
    """The factor of the learning rate after a share `done` of a training, which rises shortly and falls as a cosine to 0.01."""
    return min(1.0, done / 0.03 + 0.02) * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0))))


def _flat(tensors: Iterable[tf.Tensor]) -> tf.Tensor:
    return tf.concat([tf.reshape(x, [-1]) for x in tensors], 0)


def _add(variable: tf.Variable, value: tf.Tensor) -> tf.Operation:
    return tf.raw_ops.AssignAddVariableOp(resource=variable.handle, value=value)


def _set(variable: tf.Variable, value: tf.Tensor) -> tf.Operation:
    return tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)
