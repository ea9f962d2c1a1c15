"""What is watched for: rules and channels and their changes, as files, and of a new tenant."""
