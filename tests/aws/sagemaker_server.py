"""Moto's SageMaker, extended by updates, slow and failing endpoints, and stopped jobs.

Like AWS, it rejects the creation of a resource that already exists.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from moto.core.responses import ActionResult, EmptyResult
from moto.sagemaker import urls
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.responses import SageMakerResponse

SLOW = ["Creating", "InService"]


@dataclass
class Scenario:
    """Behaviour of the endpoints and jobs that are created or updated next.

    Attributes:
        statuses: statuses of an endpoint, one per poll.
        reason: failure reason.
        rolls_back: whether an update keeps the previous configuration.
        is_stuck: whether the deletion of an endpoint fails.
        job_statuses: statuses of a transform job, one per poll.
    """

    statuses: list[str] = field(default_factory=lambda: list(SLOW))
    reason: str = "the container did not pass its health check"
    rolls_back: bool = False
    is_stuck: bool = False
    job_statuses: list[str] = field(default_factory=lambda: ["InProgress", "Completed"])


class SageMaker(SageMakerResponse):
    """Replaces moto's own after `install`."""

    scenario: ClassVar[Scenario] = Scenario()
    next_statuses: ClassVar[dict[str, list[str]]] = {}

    def create_model(self) -> ActionResult:
        self._reject_existing("ModelName", self.sagemaker_backend._models)
        return super().create_model()

    def create_endpoint_config(self) -> ActionResult:
        self._reject_existing("EndpointConfigName", self.sagemaker_backend.endpoint_configs)
        return super().create_endpoint_config()

    def create_endpoint(self) -> ActionResult:
        name = self._reject_existing("EndpointName", self.sagemaker_backend.endpoints)
        self.next_statuses[name] = list(self.scenario.statuses)
        return super().create_endpoint()

    def update_endpoint(self) -> ActionResult:
        endpoint = self.sagemaker_backend.endpoints[self._get_param("EndpointName")]
        config = self.sagemaker_backend.describe_endpoint_config(
            self._get_param("EndpointConfigName")
        )
        if not self.scenario.rolls_back:
            endpoint.endpoint_config_name = config["EndpointConfigName"]
        self.next_statuses[endpoint.endpoint_name] = list(self.scenario.statuses)
        return ActionResult({"EndpointArn": endpoint.arn})

    def describe_endpoint(self) -> ActionResult:
        endpoint: Any = self.sagemaker_backend.endpoints.get(self._get_param("EndpointName"))
        if endpoint and self.next_statuses.get(endpoint.endpoint_name):
            endpoint.endpoint_status = self.next_statuses[endpoint.endpoint_name].pop(0)
            succeeded = endpoint.endpoint_status == "InService" and not self.scenario.rolls_back
            endpoint.failure_reason = None if succeeded else self.scenario.reason
        return super().describe_endpoint()

    def delete_endpoint(self) -> ActionResult:
        if not self.scenario.is_stuck:
            return super().delete_endpoint()
        self.next_statuses[self._get_param("EndpointName")] = ["Deleting", "Failed"]
        return EmptyResult()

    def create_transform_job(self) -> ActionResult:
        self.next_statuses[self._get_param("TransformJobName")] = list(self.scenario.job_statuses)
        return super().create_transform_job()

    def describe_transform_job(self) -> ActionResult:
        name = self._get_param("TransformJobName")
        job: Any = self.sagemaker_backend.transform_jobs[name]
        if self.next_statuses.get(name):
            job.transform_job_status = self.next_statuses[name].pop(0)
            job.failure_reason = self.scenario.reason
        return super().describe_transform_job()

    def stop_transform_job(self) -> EmptyResult:
        name = self._get_param("TransformJobName")
        self.sagemaker_backend.transform_jobs[name].transform_job_status = "Stopped"
        self.next_statuses[name] = []
        return EmptyResult()

    def _reject_existing(self, parameter: str, present: dict[str, Any]) -> str:
        name = str(self._get_param(parameter))
        if name in present:
            raise ValidationError(message=f"Cannot create already existing {name}")
        return name


def install() -> None:
    """Make servers that start later use it."""
    urls.url_paths["{0}/$"] = SageMaker.dispatch
