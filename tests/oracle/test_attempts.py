from daqu_tf.oracle.attempts import Attempts


def test_a_trial_that_is_lost_three_times_is_hopeless_and_its_message_says_how():
    attempts = Attempts()
    for worker in ("a", "b", "c"):
        assert not attempts.is_hopeless("0004")
        attempts.begin("0004", worker)
    assert attempts.is_hopeless("0004") and not attempts.is_hopeless("0005")
    attempts.explain("0004", "by c, which was killed by SIGSEGV")
    message = attempts.message("0004")
    assert "0004 was begun 3 times and never came to an end, the last time by c, which was killed by SIGSEGV: it may" in message
    assert "\n" not in message and "`max_deaths_per_trial`" in message


def test_what_is_given_back_or_has_ended_is_not_lost():
    attempts = Attempts(2)
    for _ in range(9):
        attempts.begin("0000", "a")
        attempts.give_back("0000")
        attempts.begin("0001", "a")
        attempts.end("0001")
    assert not attempts.is_hopeless("0000") and not attempts.is_hopeless("0001")


def test_a_refused_report_stands_until_the_trial_begins_again():
    attempts = Attempts(2)
    attempts.begin("0000", "a")
    attempts.refuse("0000", "with a report that was refused")
    assert attempts.is_refused("0000")
    attempts.begin("0000", "a")
    assert not attempts.is_refused("0000") and attempts.is_hopeless("0000")
