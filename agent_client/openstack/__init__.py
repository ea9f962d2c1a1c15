"""What a cloud's APIs say, asked by a short-lived process of its own.

It is `python -m agent_client.openstack`: `rounds` is one round of questions, `parts` are the
questions, `client` is how one is asked. The process reads its task as JSON from standard input
(secrets are neither in its arguments nor in its environment) and answers with JSON on standard
output. Only it needs openstacksdk.
"""
