"""The application in AWS's Ray container for SageMaker."""
