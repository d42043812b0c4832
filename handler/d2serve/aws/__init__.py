"""d2serve on AWS: SageMaker endpoints, batch transform and Clarify, through boto3."""
