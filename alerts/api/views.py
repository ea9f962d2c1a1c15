"""Rules, alerts, incidents and notification channels for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from django.db.models import Count, Model, OuterRef, Prefetch, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer, Serializer
from rest_framework.viewsets import ModelViewSet, ReadOnlyModelViewSet

from accounts.api.auth import AtLeast, AtLeastAdmin, access_of
from accounts.models import Role
from alerts.api.serializers import (
    AlertSerializer,
    AssignSerializer,
    ChangeSerializer,
    ChannelSerializer,
    CommentSerializer,
    IncidentSerializer,
    JudgementSerializer,
    PreviewSerializer,
    RuleFileSerializer,
    RuleSerializer,
    RuleVersionSerializer,
    ShelveSerializer,
    TestedSerializer,
    Validated,
)
from alerts.engines import previews, traces
from alerts.lifecycle import care
from alerts.models import Alert, Event, Incident, NotificationChannel, Rule, RuleVersion, Severity
from alerts.rulebook import rulefiles, rules
from alerts.telling import delivery
from sentinel_site.kit.api import NewestFirst

_ACTED = {200: IncidentSerializer, 409: OpenApiResponse(description="It is not as it would be.")}
_FILTERS = [
    OpenApiParameter("state", enum=["open", "resolved"]),
    OpenApiParameter("severity", enum=Severity.values),
    OpenApiParameter("server", int, description="Only of this server."),
]


#: So many alerts and events stand in an incident; `alerts/?incident=` lists them all.
NESTED = 200


def _counted(model: type[Model]) -> Coalesce:
    """How many rows of it an incident has."""
    rows = model._default_manager.filter(incident=OuterRef("pk")).order_by().values("incident")
    return Coalesce(Subquery(rows.annotate(n=Count("pk")).values("n")), 0)


class MayLook(AtLeast):
    """What is sent is only looked at: viewers may."""

    write = Role.VIEWER


class RuleViewSet(ModelViewSet[Rule]):
    """What the organization watches for."""

    queryset = Rule.objects.all()
    serializer_class = RuleSerializer
    pagination_class = NewestFirst

    def perform_create(self, serializer: BaseSerializer[Any]) -> None:
        row = cast(Validated, serializer).judged
        serializer.instance = rules.save_rule(access_of(self.request), row, timezone.now())

    perform_update = perform_create

    def perform_destroy(self, instance: Rule) -> None:
        rules.delete_rule(access_of(self.request), instance, timezone.now())

    @extend_schema(
        request=RuleSerializer,
        parameters=[OpenApiParameter("span", enum=list(previews.SPANS))],
        responses={200: PreviewSerializer},
    )
    @action(detail=False, methods=["post"], permission_classes=[MayLook])
    def preview(self, request: Request) -> Response:
        """What this rule would have raised in the last hours or days; nothing is stored."""
        serializer = RuleSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        tenant = access_of(request).tenant
        span = request.query_params.get("span", "24h")
        found = previews.preview(tenant, serializer.judged, timezone.now(), span)
        return Response(asdict(found))

    @extend_schema(
        methods=["GET"],
        request=None,
        responses={(200, "application/yaml"): OpenApiTypes.STR},
        description="All rules as a file.",
    )
    @extend_schema(
        methods=["PUT"],
        request=RuleFileSerializer,
        responses={200: ChangeSerializer(many=True), 422: OpenApiResponse(description="Mistakes")},
        description="Compare the file with the rules that stand, or apply it: all or nothing.",
    )
    @action(detail=False, methods=["get", "put"], pagination_class=None)
    def file(self, request: Request) -> HttpResponse:
        if request.method == "GET":
            text = rulefiles.write(Rule.objects.select_related("group", "server"))
            return HttpResponse(text, content_type="application/yaml; charset=utf-8")
        given = RuleFileSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        wanted = rulefiles.read(given.validated_data["text"])
        prune = given.validated_data["prune"]
        if given.validated_data["dry_run"]:
            done = rulefiles.diff(wanted, prune)
        else:
            done = rules.apply_rules(access_of(request), wanted, timezone.now(), prune)
        return Response(ChangeSerializer([_change(one) for one in done], many=True).data)

    @extend_schema(request=None, responses={200: RuleVersionSerializer(many=True)})
    @action(detail=True, methods=["get"], pagination_class=None)
    def versions(self, request: Request, pk: str) -> Response:
        """Who changed it, when, and how it was since then; newest first."""
        rows = RuleVersion.objects.filter(rule=self.get_object())[:100]
        return Response(RuleVersionSerializer(rows, many=True).data)


class ChannelViewSet(ModelViewSet[NotificationChannel]):
    """Who is told. Admins change them."""

    queryset = NotificationChannel.objects.select_related("fares")
    serializer_class = ChannelSerializer
    permission_classes = [AtLeastAdmin]
    pagination_class = NewestFirst

    def perform_create(self, serializer: BaseSerializer[Any]) -> None:
        channel = cast(ChannelSerializer, serializer)
        channel.made = rules.save_channel(access_of(self.request), channel.judged, timezone.now())
        channel.instance = channel.judged

    perform_update = perform_create

    @extend_schema(request=None, responses={200: TestedSerializer})
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:
        """Send a test message now, and say what came of it."""
        failure = delivery.send_test(access_of(request), self.get_object(), timezone.now())
        return Response(TestedSerializer({"delivered": not failure, "answer": failure}).data)

    def perform_destroy(self, instance: NotificationChannel) -> None:
        rules.delete_channel(access_of(self.request), instance, timezone.now())


@extend_schema(
    parameters=[*_FILTERS, OpenApiParameter("incident", int, description="Only of this incident.")]
)
class AlertViewSet(ReadOnlyModelViewSet[Alert]):
    """Stored breaches, newest first."""

    queryset = Alert.objects.select_related("server")
    serializer_class = AlertSerializer
    pagination_class = NewestFirst

    def filter_queryset(self, queryset: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        if self.action != "list":
            return queryset
        queryset = _filtered(queryset, self.request)
        for name in ("server", "incident"):
            number = self.request.query_params.get(name)
            if number:
                queryset = queryset.filter(**{name: _number(name, number)})
        return queryset

    @extend_schema(parameters=[], request=None, responses={200: JudgementSerializer(many=True)})
    @action(detail=True, methods=["get"], pagination_class=None)
    def judgements(self, request: Request, pk: str) -> Response:
        """The numbers that its rule saw and what was decided, oldest first."""
        found = traces.of(self.get_object())["judgements"]
        return Response(JudgementSerializer(found, many=True).data)


@extend_schema(parameters=_FILTERS)
class IncidentViewSet(ReadOnlyModelViewSet[Incident]):
    """Alerts that belong together, newest first; what people acknowledge and resolve."""

    queryset = Incident.objects.prefetch_related(
        Prefetch(
            "alert_set",
            Alert.objects.select_related("server").order_by("-pk")[:NESTED],
            to_attr="newest_alerts",
        ),
        Prefetch(
            "event_set", Event.objects.order_by("-at", "-pk")[:NESTED], to_attr="newest_events"
        ),
    ).annotate(alert_count=_counted(Alert), event_count=_counted(Event))
    serializer_class = IncidentSerializer
    pagination_class = NewestFirst

    def filter_queryset(self, queryset: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
        if self.action != "list":
            return queryset
        queryset = _filtered(queryset, self.request)
        server = self.request.query_params.get("server")
        if server:
            queryset = queryset.filter(alert__server=_number("server", server)).distinct()
        return queryset

    def _done(self) -> Response:
        return Response(IncidentSerializer(self.get_object()).data)

    @extend_schema(request=None, responses=_ACTED)
    @action(detail=True, methods=["post"])
    def acknowledge(self, request: Request, pk: str) -> Response:
        """Take it; a second person is told that it is taken."""
        care.acknowledge(access_of(request), self.get_object(), timezone.now())
        return self._done()

    @extend_schema(request=None, responses=_ACTED)
    @action(detail=True, methods=["post"])
    def unacknowledge(self, request: Request, pk: str) -> Response:
        """Give it back: nobody has it any more."""
        care.release(access_of(request), self.get_object(), timezone.now())
        return self._done()

    @extend_schema(request=AssignSerializer, responses=_ACTED)
    @action(detail=True, methods=["post"])
    def assign(self, request: Request, pk: str) -> Response:
        """Say which member is to see to it."""
        incident = self.get_object()
        user = _given(AssignSerializer, request)["user"]
        care.assign(access_of(request), incident, user, timezone.now())
        return self._done()

    @extend_schema(request=CommentSerializer, responses=_ACTED)
    @action(detail=True, methods=["post"])
    def comment(self, request: Request, pk: str) -> Response:
        """Add a note to its history."""
        incident = self.get_object()
        text = _given(CommentSerializer, request)["text"]
        care.comment(access_of(request), incident, text, timezone.now())
        return self._done()

    @extend_schema(request=ShelveSerializer, responses=_ACTED)
    @action(detail=True, methods=["post"])
    def shelve(self, request: Request, pk: str) -> Response:
        """Nobody is told of it before a time; then it returns by itself."""
        incident = self.get_object()
        given = _given(ShelveSerializer, request)
        until, reason = given["until"], given["reason"]
        care.shelve(access_of(request), incident, until, reason, timezone.now())
        return self._done()

    @extend_schema(request=None, responses=_ACTED)
    @action(detail=True, methods=["post"])
    def unshelve(self, request: Request, pk: str) -> Response:
        """Bring it back before its time."""
        care.unshelve(access_of(request), self.get_object(), timezone.now())
        return self._done()

    @extend_schema(request=None, responses=_ACTED)
    @action(detail=True, methods=["post"])
    def resolve(self, request: Request, pk: str) -> Response:
        """End it by hand. If its rule still holds, it opens again, unless it is shelved."""
        care.resolve(access_of(request), self.get_object(), timezone.now())
        return self._done()


def _given(kind: type[Serializer[Any]], request: Request) -> dict[str, Any]:
    """The body as the serializer understands it."""
    serializer = kind(data=request.data)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def _filtered(rows: QuerySet[Any, Any], request: Request) -> QuerySet[Any, Any]:
    state = request.query_params.get("state", "")
    severity = request.query_params.get("severity", "")
    if state not in ("", "open", "resolved"):
        raise ValidationError({"state": "Use open or resolved."})
    if severity and severity not in Severity.values:
        raise ValidationError({"severity": f"Use one of {', '.join(Severity.values)}."})
    if state:
        rows = rows.filter(resolved_at__isnull=state == "open")
    return rows.filter(severity=severity) if severity else rows


def _change(one: rulefiles.Change) -> dict[str, Any]:
    name, group, host = one.key
    fields = {key: {"before": a, "after": b} for key, (a, b) in one.fields.items()}
    return {"verb": one.verb, "name": name, "group": group, "server": host, "fields": fields}


def _number(name: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise ValidationError({name: "Give a whole number."})
    return int(text)
