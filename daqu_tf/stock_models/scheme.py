"""The TFMOT scheme of switchable models, which quantizes inputs and what was annotated, and nothing else."""

from typing import Any

from daqu_tf.keras import keras, tfmot
from daqu_tf.spaces.bits import FIXED_BITS
from daqu_tf.stock_models.quantizers import StockQuantizer

transforms = tfmot.quantization.keras.default_8bit.default_8bit_transforms
QuantizeLayer = transforms.InputLayerQuantize().custom_objects()["QuantizeLayer"]  # TFMOT gives it no public name.
PREFIX = "quant_"  # TFMOT uses the same.


class _QuantizeInput(tfmot.quantization.keras.default_8bit.default_8bit_transforms.InputLayerQuantize):
    """TFMOT's transform that puts a QuantizeLayer behind each input, with our quantizer in it."""

    def replacement(self, match_layer: Any) -> Any:
        node = super().replacement(match_layer)
        quantizer = StockQuantizer((FIXED_BITS,), signed=True)
        node.layer["config"]["quantizer"] = keras.utils.legacy.serialize_keras_object(quantizer)
        node.layer["name"] = node.layer["config"]["name"] = PREFIX + match_layer.layer["config"]["name"]
        return node


class _QuantizeInputs(tfmot.quantization.keras.QuantizeLayoutTransform):
    def apply(self, model: keras.Model, layer_quantize_map: dict[str, Any]) -> tuple[keras.Model, dict[str, Any]]:
        transformer = tfmot.quantization.keras.graph_transformations.model_transformer.ModelTransformer
        return transformer(model, [_QuantizeInput()], layer_metadata=layer_quantize_map).transform()


class _NoDefaults(tfmot.quantization.keras.QuantizeRegistry):
    def supports(self, layer: keras.layers.Layer) -> bool:
        return False

    def get_quantize_config(self, layer: keras.layers.Layer) -> None:
        return None


class SwitchableScheme(tfmot.quantization.keras.QuantizeScheme):
    """The `scheme` for `quantize_apply`, which gives inputs a switchable 8-bit quantizer, and layers what was annotated.

    TFMOT's default scheme adds quantizers of its own, always of 8 bits, to inputs and to layers that feed annotated ones.
    """

    def get_layout_transformer(self) -> tfmot.quantization.keras.QuantizeLayoutTransform:
        """The transformer, which puts quantizers behind the inputs."""
        return _QuantizeInputs()

    def get_quantize_registry(self) -> tfmot.quantization.keras.QuantizeRegistry:
        """The registry, which has no defaults for any layer."""
        return _NoDefaults()
