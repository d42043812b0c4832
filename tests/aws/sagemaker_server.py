"""Moto's SageMaker with what it lacks: updates, endpoints that take time and fail, stopped jobs.

It also refuses, as AWS does, to make what exists already.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from moto.core.responses import ActionResult, EmptyResult
from moto.sagemaker import urls
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.responses import SageMakerResponse

SLOW = ["Creating", "InService"]


@dataclass
class Fate:
    """What becomes of the endpoints and jobs that are made or updated next."""

    statuses: list[str] = field(default_factory=lambda: list(SLOW))
    reason: str = "the container did not pass its health check"
    rolls_back: bool = False
    is_stuck: bool = False  # a deletion fails
    job_statuses: list[str] = field(default_factory=lambda: ["InProgress", "Completed"])


class SageMaker(SageMakerResponse):
    """Serves in place of moto's own once `install` has run."""

    fate: ClassVar[Fate] = Fate()
    coming: ClassVar[dict[str, list[str]]] = {}

    def create_model(self) -> ActionResult:
        self._refuse_existing("ModelName", self.sagemaker_backend._models)
        return super().create_model()

    def create_endpoint_config(self) -> ActionResult:
        self._refuse_existing("EndpointConfigName", self.sagemaker_backend.endpoint_configs)
        return super().create_endpoint_config()

    def create_endpoint(self) -> ActionResult:
        name = self._refuse_existing("EndpointName", self.sagemaker_backend.endpoints)
        self.coming[name] = list(self.fate.statuses)
        return super().create_endpoint()

    def update_endpoint(self) -> ActionResult:
        endpoint = self.sagemaker_backend.endpoints[self._get_param("EndpointName")]
        config = self.sagemaker_backend.describe_endpoint_config(
            self._get_param("EndpointConfigName")
        )
        if not self.fate.rolls_back:
            endpoint.endpoint_config_name = config["EndpointConfigName"]
        self.coming[endpoint.endpoint_name] = list(self.fate.statuses)
        return ActionResult({"EndpointArn": endpoint.arn})

    def describe_endpoint(self) -> ActionResult:
        endpoint: Any = self.sagemaker_backend.endpoints.get(self._get_param("EndpointName"))
        if endpoint and self.coming.get(endpoint.endpoint_name):
            endpoint.endpoint_status = self.coming[endpoint.endpoint_name].pop(0)
            in_order = endpoint.endpoint_status == "InService" and not self.fate.rolls_back
            endpoint.failure_reason = None if in_order else self.fate.reason
        return super().describe_endpoint()

    def delete_endpoint(self) -> ActionResult:
        if not self.fate.is_stuck:
            return super().delete_endpoint()
        self.coming[self._get_param("EndpointName")] = ["Deleting", "Failed"]
        return EmptyResult()

    def create_transform_job(self) -> ActionResult:
        self.coming[self._get_param("TransformJobName")] = list(self.fate.job_statuses)
        return super().create_transform_job()

    def describe_transform_job(self) -> ActionResult:
        name = self._get_param("TransformJobName")
        job: Any = self.sagemaker_backend.transform_jobs[name]
        if self.coming.get(name):
            job.transform_job_status = self.coming[name].pop(0)
            job.failure_reason = self.fate.reason
        return super().describe_transform_job()

    def stop_transform_job(self) -> EmptyResult:
        name = self._get_param("TransformJobName")
        self.sagemaker_backend.transform_jobs[name].transform_job_status = "Stopped"
        self.coming[name] = []
        return EmptyResult()

    def _refuse_existing(self, parameter: str, present: dict[str, Any]) -> str:
        name = str(self._get_param(parameter))
        if name in present:
            raise ValidationError(message=f"Cannot create already existing {name}")
        return name


def install() -> None:
    """Has every server that starts from now on serve it."""
    urls.url_paths["{0}/$"] = SageMaker.dispatch
