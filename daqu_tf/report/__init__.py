"""What a run found, for people: `pareto.csv`, `pareto.png`, `report.html` and the models' card, from the files in its folder.

`run` reads the folder, `text` puts figures into words, `pictures` draws, `page` writes the HTML and `card` the Markdown beside the
models, and `report` writes all of these.
"""

from daqu_tf.report.report import write_report

__all__ = ["write_report"]
