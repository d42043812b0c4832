"""d2serve on AWS: SageMaker endpoints, batch transform and Clarify, by boto3 alone."""
