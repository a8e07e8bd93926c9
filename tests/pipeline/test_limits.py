import pytest

from daqu_tf import RunConfig, spaces, targets
from daqu_tf.errors import DaquError
from daqu_tf.pareto.constraints import parse
from daqu_tf.pipeline import limits
from daqu_tf.pipeline.pipeline import dry_run
from daqu_tf.targets import costs

TARGET = targets.get("litert_cpu")
SPACE = TARGET.restrict(spaces.get("digits"))
ENDS = (SPACE.smallest(), SPACE.largest())
COMPUTED = (*targets.COMPUTED, "file_bytes", "deflated_bytes")


def least_and_most(metric):
    figures = costs.of_many(SPACE, SPACE.genomes([subnet.values for subnet in ENDS]), TARGET)[metric]
    return float(figures.min()), float(figures.max())


@pytest.mark.parametrize("metric", COMPUTED)
def test_a_constraint_is_refused_just_beyond_what_there_is(metric):
    least, most = least_and_most(metric)
    for text in (f"{metric}<={least}", f"{metric}>={most}"):
        limits.check(parse([text]), SPACE, ENDS, TARGET)
    for text, nearest in ((f"{metric}<={least - 1}", least), (f"{metric}>={most + 1}", most)):
        with pytest.raises(DaquError, match=f"is met by no network of digits: the nearest .* has {metric} of {nearest:.15g}"):
            limits.check(parse(["macs>=0", text]), SPACE, ENDS, TARGET)


def test_an_accuracy_is_a_share_and_a_latency_is_the_devices():
    limits.check(parse(["accuracy>=1", "accuracy<=0", "latency_us<=1e-3"]), SPACE, ENDS, TARGET)
    with pytest.raises(DaquError, match="accuracy>=90 is met by no network .* accuracy of 1, as 0.9 for 90%"):
        limits.check(parse(["accuracy>=90"]), SPACE, ENDS, TARGET)


@pytest.mark.parametrize("architectures", ["search", "hand_scaled"])
def test_a_job_is_refused_before_anything_is_trained(architectures, tmp_path):
    settings = {"constraint": ["macs<=1"], "architectures": architectures, "budget_minutes": 3.0}
    with pytest.raises(DaquError, match="macs<=1 is met by no network of digits"):
        dry_run(RunConfig("digits", str(tmp_path / "run"), space="digits", **settings))
    assert not [*tmp_path.iterdir()]
