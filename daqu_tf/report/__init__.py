"""What a run found, for people: `pareto.csv`, `pareto.png`, `report.html`, the models' card, and the choice of one of them.

`run` reads the folder, `text` puts figures into words, `pictures` draws, `page` writes the HTML, of which `explorer` is the part
that one can play with, and `card` the Markdown beside the models, and `report` writes all of these. `choosing` takes one model of
the front, and says why.
"""

from daqu_tf.report.choosing import Choice, choose
from daqu_tf.report.report import write_report

__all__ = ["write_report", "choose", "Choice"]
