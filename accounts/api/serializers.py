"""What members and keys look like to programs."""

from __future__ import annotations

from rest_framework import serializers

from accounts.models import Key, Membership, Role


class MemberSerializer(serializers.ModelSerializer[Membership]):
    """A person's role. Only the role can be changed; to add somebody, invite them."""

    email = serializers.EmailField(source="user.email", read_only=True)
    name = serializers.CharField(source="user.name", read_only=True)
    role = serializers.ChoiceField(choices=Role.choices)

    class Meta:
        model = Membership
        fields = ["id", "email", "name", "role", "joined_at"]
        read_only_fields = ["joined_at"]


class InviteSerializer(serializers.Serializer[object]):
    email = serializers.EmailField()
    role = serializers.ChoiceField(choices=Role.choices, default=Role.MEMBER)


class KeySerializer(serializers.ModelSerializer[Key]):
    """A key without its secret."""

    class Meta:
        model = Key
        fields = [
            "id",
            "prefix",
            "name",
            "scope",
            "agent_id",
            "created_at",
            "used_at",
            "revoked_at",
        ]
        read_only_fields = ["prefix", "agent_id", "created_at", "used_at", "revoked_at"]


class NewKeySerializer(serializers.Serializer[object]):
    """What to ask for; enrol tokens live for one hour and work once."""

    name = serializers.CharField(max_length=120, required=False, allow_blank=True, default="")
    scope = serializers.ChoiceField(choices=Key.Scope.choices)


class IssuedKeySerializer(KeySerializer):
    """A new key with its secret, which is shown this once."""

    key = serializers.CharField(read_only=True)

    class Meta(KeySerializer.Meta):
        fields = [*KeySerializer.Meta.fields, "key"]
