"""The one place that imports tf_keras and TFMOT, so that no module meets Keras 3 by accident."""

from daqu_tf.environment import check_keras

check_keras()

import tensorflow_model_optimization as tfmot  # noqa: E402
import tf_keras as keras  # noqa: E402

QuantizeConfig = tfmot.quantization.keras.QuantizeConfig
Quantizer = tfmot.quantization.keras.quantizers.Quantizer
QuantizeWrapper = tfmot.quantization.keras.QuantizeWrapperV2

__all__ = ["QuantizeConfig", "QuantizeWrapper", "Quantizer", "keras", "tfmot"]
