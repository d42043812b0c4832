"""Hostile and unusual HTTP: the status, the error in the contract's form, and no harm to others."""

from http import HTTPStatus
from typing import Any

import httpx
import pytest

from d2serve.errors import CODES
from tests.serving.hostile.cases import CASES, IMAGE, Case
from tests.serving.hostile.conftest import Target
from tests.serving.hostile.wire import Response
from tests.serving.traffic import assert_same_prediction

pytestmark = pytest.mark.serving

CODE_OF = dict(CODES)
WITH_FIELD = {401: "www-authenticate", 405: "allow", 503: "retry-after"}


def predict(target: Target) -> dict[str, Any]:
    """The prediction for IMAGE that a normal client receives."""
    response = httpx.post(f"{target.url}/invocations", content=IMAGE, timeout=60, trust_env=False)
    assert response.status_code == HTTPStatus.OK, response.text
    prediction: dict[str, Any] = response.json()
    return prediction


def assert_error_of_the_contract(response: Response) -> None:
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error.keys() == {"code", "message", "hint"}
    assert error["code"] == CODE_OF[response.status]
    assert error["message"]
    assert error["hint"]
    assert "Traceback" not in response.body.decode()
    if response.status in WITH_FIELD:
        assert response.headers[WITH_FIELD[response.status]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_client_receives_a_status_and_harms_no_other(target: Target, case: Case) -> None:
    outcome = case.play(target.address)
    assert outcome.statuses in case.expected
    if case.closes:
        assert outcome.is_closed
    for response in outcome.responses:
        if response.status >= HTTPStatus.BAD_REQUEST and not case.is_head:
            assert_error_of_the_contract(response)
    prediction = predict(target)
    assert prediction["names"]
    if case.is_prediction:
        assert_same_prediction(outcome.responses[-1].json(), prediction)
