"""Networks to `.tflite` files, exactly.

`export` writes a network, and rounds its biases to what a file holds. `subnet_graph` and `stock_graph` make a graph of a subnet
or of a model of your own, both by `builder`; `encoding` makes bytes of it, `proof` runs them and compares. `description` finds
out how well a file does, `manifest` is the record of that, and `verification` compares files with it.
"""

from typing import TYPE_CHECKING

from daqu_tf.lazy import attach

if TYPE_CHECKING:
    from daqu_tf.export.export import export_tflite, round_biases
    from daqu_tf.export.verification import Verifier

__all__ = ["export_tflite", "round_biases", "Verifier"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "export_tflite": "export",
        "round_biases": "export",
        "Verifier": "verification",
    },
)
