"""What is wrong, and who was told. One set of these tables per tenant, in its own schema.

People are named by id (`by`): their rows are in the public schema and are never deleted.
"""

from alerts.models.channels import (
    Attempt,
    ChannelState,
    Notification,
    NotificationChannel,
    config_of,
)
from alerts.models.checkins import CheckIn
from alerts.models.incidents import Alert, Event, Incident, Received
from alerts.models.notices import Reader
from alerts.models.routes import Escalation, Route, RouteStep
from alerts.models.rules import (
    LONGEST_HISTORY,
    LONGEST_WINDOW,
    NAME_TAKEN,
    Judgement,
    Pending,
    Remembered,
    Rule,
    RuleVersion,
)
from alerts.models.severities import Severity

__all__ = [
    "LONGEST_HISTORY",
    "LONGEST_WINDOW",
    "NAME_TAKEN",
    "Alert",
    "Attempt",
    "ChannelState",
    "CheckIn",
    "Escalation",
    "Event",
    "Incident",
    "Judgement",
    "Notification",
    "NotificationChannel",
    "Pending",
    "Reader",
    "Received",
    "Remembered",
    "Route",
    "RouteStep",
    "Rule",
    "RuleVersion",
    "Severity",
    "config_of",
]
