"""More requests than the server can take: what is refused, when and how."""

from tests.serving.faults.faulty import BATCH, GOOD, QUEUE, Faulty, error_code


def test_beyond_the_queue_requests_are_refused_at_once_and_the_others_answered(
    faulty: Faulty,
) -> None:
    held = faulty.hold()
    waiting = [faulty.ask_meanwhile(GOOD) for _ in range(QUEUE)]
    faulty.wait_for_queue(QUEUE)
    for _ in range(3):
        refused = faulty.ask(GOOD)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert error_code(refused) == "overloaded"
    assert not held.done()
    faulty.let_go()
    assert [answer.result().status_code for answer in (held, *waiting)] == [200] * (1 + QUEUE)
    assert faulty.ask(GOOD).status_code == 200


def test_a_request_whose_client_has_given_up_reaches_no_network(faulty: Faulty) -> None:
    held = faulty.hold()
    late = faulty.ask_meanwhile(GOOD, {"X-D2serve-Timeout-Ms": "1"})
    patient = faulty.ask_meanwhile(GOOD, {"X-D2serve-Timeout-Ms": "90000"})
    faulty.wait_for_queue(2)
    faulty.let_go()
    refused = late.result()
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert error_code(refused) == "overloaded"
    assert "waited longer than 0.001 s" in refused.text
    assert "forward;dur=0.00" in refused.headers["server-timing"]
    answered = patient.result()
    assert answered.status_code == 200
    assert 'batch;desc="1"' in answered.headers["server-timing"]
    assert held.result().status_code == 200


def test_a_batch_in_the_worker_leaves_the_whole_queue_to_others(faulty: Faulty) -> None:
    """A worker takes a batch out of the queue, so one batch more than the queue can be inside."""
    held = faulty.hold()
    waiting = [faulty.ask_meanwhile(GOOD) for _ in range(QUEUE)]
    faulty.wait_for_queue(QUEUE)
    faulty.let_go()
    together = [answer.result() for answer in (held, *waiting)]
    assert all(answer.status_code == 200 for answer in together)
    assert BATCH < 1 + QUEUE
