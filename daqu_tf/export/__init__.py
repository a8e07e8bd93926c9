"""The export of networks to `.tflite` files that compute, on XNNPACK, exactly what the networks do; other kernels round twice.

`export` writes a network, and rounds its biases to what a file holds. `subnet_graph` makes the graph of a subnet, as
`stock_models` makes that of a model of your own; `ends` says what goes in and what comes out; `encoding` turns the graph into
bytes, and `proof` runs these and compares. `description` finds out how well a file does, `manifest` is the record of that, and
`verification` compares files with it. `prediction` goes from a photo to its label, as applications should.
"""

from typing import TYPE_CHECKING

from daqu_tf.lazy import attach

if TYPE_CHECKING:
    from daqu_tf.export.export import export_tflite, round_biases
    from daqu_tf.export.prediction import predict
    from daqu_tf.export.verification import Verifier

__all__ = ["export_tflite", "round_biases", "predict", "Verifier"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "export_tflite": "export",
        "round_biases": "export",
        "predict": "prediction",
        "Verifier": "verification",
    },
)
