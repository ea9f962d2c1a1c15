"""Rules as YAML: written, read with the line of each mistake, compared with those that stand.

A file names the rules that it is about by name and reach; spans are written `5 min`. What a rule
does not say is as in a new one, so that what is exported is short and the same file means the same
tomorrow.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import yaml
from django.core.exceptions import ValidationError

from alerts.models import Rule, Severity
from alerts.values import selectors
from alerts.values.wording import LONGEST_SECONDS, BadSpan, read_span, span_exactly
from clouds.models import CloudGroup, Server
from sentinel_site.kit.problems import Problem

MOST_BYTES = 1024 * 1024
MOST_RULES = 2_000
_DEEPEST = 30
#: Values, lists and ends of lists: several times what MOST_RULES need.
_MOST_PARTS = 150_000
#: Characters of a number.
_LONGEST_NUMBER = 500

_TEXTS = (
    "name", "kind", "measurement", "field", "aggregation", "words", "pattern", "level", "service",
    "comparison", "no_data", "advice",
)  # fmt: skip
_SPANS = ("window", "hold", "recovery_hold", "history")
_NUMBERS = ("recovery", "target", "guard")
#: A rule's key among all: its name, cloud group and host, the last two empty for all servers.
Key = tuple[str, str, str]


class BadRules(Problem):
    status, code, title = 422, "bad-rules", "The file of rules has mistakes"


@dataclass(frozen=True)
class Mistake:
    """What is wrong in a line, and what to do."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


@dataclass(frozen=True)
class Change:
    """What applying a file does to one rule; `fields` has before and after by name."""

    verb: str  # add, change, remove
    key: Key
    rule: Rule
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        lines = [f"    {name}: {before} -> {after}" for name, before, after in self.lines]
        return "\n".join([f"{_MARKS[self.verb]} {self.key[0]}{where}", *lines])

    @property
    def where(self) -> str:
        """The cloud group or server that the rule is for; empty for all."""
        return self.key[1] or self.key[2]

    @property
    def lines(self) -> list[tuple[str, str, str]]:
        """Name, before and after of each field in words."""
        return [(name, words(a), words(b)) for name, (a, b) in self.fields.items()]


_MARKS = {"add": "+", "change": "~", "remove": "-"}


def key_of(rule: Rule) -> Key:
    return (
        rule.name,
        rule.group.name if rule.group else "",
        rule.server.host if rule.server else "",
    )


# -- out ----------------------------------------------------------------------


def body(rule: Rule) -> dict[str, Any]:
    """What a file says of it: all that is not as in a new rule."""
    found: dict[str, Any] = {}
    fresh = Rule()
    for name in Rule.SAID:
        value = getattr(rule, name)
        if name in ("name", "kind"):
            found[name] = str(value)
        elif name == "group":
            if rule.group:
                found[name] = rule.group.name
        elif name == "server":
            if rule.server:
                found[name] = rule.server.host
        elif name == "thresholds" or (name == "recovery" and value is not None):
            found[name] = _limits(rule, value)
        elif value != getattr(fresh, name):
            found[name] = span_exactly(value) if isinstance(value, timedelta) else value
    if rule.kind == Rule.Kind.SERVICE:
        del found["measurement"], found["field"]
    return {name: _plain(value) for name, value in found.items()}


def _limits(rule: Rule, value: Any) -> Any:
    if isinstance(value, Mapping):
        named = {one.value: value[one] for one in Severity if one in value}
        return {severity: _limits(rule, limit) for severity, limit in named.items()}
    if rule.counts_time and 1 <= value <= LONGEST_SECONDS:
        return span_exactly(timedelta(seconds=value))
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return str(value) if isinstance(value, str) else value


def write(rules: Iterable[Rule]) -> str:
    """The file of these rules."""
    rows = [body(rule) for rule in rules]
    text: str = yaml.safe_dump(
        {"rules": rows}, sort_keys=False, allow_unicode=True, width=100, default_flow_style=False
    )
    return text


# -- in -----------------------------------------------------------------------


def read(text: str) -> list[Rule]:
    """The rules of a file, judged as by a form, not stored. Raises BadRules with all mistakes."""
    mistakes: list[Mistake] = []
    found: list[Rule] = []
    lines: dict[Key, int] = {}
    groups = {group.name: group for group in CloudGroup.objects.all()}
    for node in _entries(text):
        line = node.start_mark.line + 1
        said = _said(node, mistakes)
        if said is None:
            continue
        before = len(mistakes)
        rule = _rule(said, line, groups, mistakes)
        if len(mistakes) == before:
            _judge(rule, said, line, mistakes)
        key = key_of(rule)
        if key in lines:
            mistakes.append(Mistake(line, f"{rule.name} is in line {lines[key]} already."))
        lines.setdefault(key, line)
        found.append(rule)
    if mistakes:
        raise _bad(mistakes)
    return found


def _bad(mistakes: list[Mistake]) -> BadRules:
    return BadRules(
        "\n".join(map(str, mistakes)),
        mistakes=[{"line": one.line, "text": one.text} for one in mistakes],
    )


def _entries(text: str) -> list[yaml.Node]:
    """The nodes of the rules, each with its place in the file. Raises BadRules."""
    if len(text.encode()) > MOST_BYTES:
        raise _bad([Mistake(1, f"More than {MOST_BYTES // 1024} KiB; split the file.")])
    try:
        _check_shape(text)
        root = yaml.compose(text, _Parser)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or "it can't be read"
        raise _bad([Mistake(mark.line + 1 if mark else 1, f"This is no YAML: {said}.")]) from error
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    if [key.value for key, _ in pairs] != ["rules"]:
        raise _bad([Mistake(1, "Begin with “rules:” and a list of rules, and nothing else.")])
    rules = pairs[0][1]
    if not isinstance(rules, yaml.SequenceNode):
        raise _bad([Mistake(rules.start_mark.line + 1, "Give a list: each rule begins with “- ”.")])
    if len(rules.value) > MOST_RULES:
        raise _bad([Mistake(1, f"More than {MOST_RULES} rules; split the file.")])
    return list(rules.value)


def _check_shape(text: str) -> None:
    """No references, depths or masses, before anything is built of it.

    Raises BadRules, YAMLError.
    """
    depth = 0
    for count, event in enumerate(yaml.parse(text, _Parser)):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if count >= _MOST_PARTS:
            raise _bad([Mistake(line, "It has too many values; split the file.")])
        if isinstance(event, yaml.ScalarEvent) and "\0" in event.value:
            raise _bad([Mistake(line, "Leave out the character NUL (\\0).")])
        if isinstance(event, yaml.AliasEvent):
            raise _bad([Mistake(line, "Write it out; references (*name) aren't read.")])
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise _bad([Mistake(line, "It is nested too deeply.")])


_Said = dict[str, tuple[Any, int]]


def _said(node: yaml.Node, mistakes: list[Mistake]) -> _Said | None:
    """Value and line of each field."""
    if not isinstance(node, yaml.MappingNode):
        mistakes.append(Mistake(node.start_mark.line + 1, "Give fields, as in “name: Disk full”."))
        return None
    said: _Said = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        name = str(key.value)
        if name not in Rule.SAID:
            known = ", ".join(Rule.SAID)
            mistakes.append(Mistake(line, f"There is no field {name!r}. Use {known}."))
        elif name in said:
            mistakes.append(Mistake(line, f"{name} is given twice."))
        else:
            try:
                said[name] = (_Loader.of(value), line)
            except (yaml.YAMLError, ValueError, OverflowError) as error:  # the 31st of February
                said_of_it = f"{name} can't be read: {error}. Put text in quotes."
                mistakes.append(Mistake(line, said_of_it))
    if "name" not in said:
        mistakes.append(Mistake(node.start_mark.line + 1, "Give it a name."))
        return None
    return said


#: That of libyaml, where PyYAML has it: a file of rules takes a tenth of the time.
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(yaml.SafeLoader):
    @classmethod
    def of(cls, node: yaml.Node) -> Any:
        return cls("").construct_document(node)

    def number(self, node: yaml.ScalarNode) -> Any:
        """As YAML 1.1 reads it, 190:20:30 too, which takes longer than in proportion."""
        if len(node.value) > _LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(
                problem=f"a number has at most {_LONGEST_NUMBER} characters"
            )
        if node.tag.endswith("int"):
            return self.construct_yaml_int(node)
        return self.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.number)


def _rule(
    said: _Said, line: int, groups: Mapping[str, CloudGroup], mistakes: list[Mistake]
) -> Rule:
    rule = Rule()
    for name, (value, at) in said.items():
        try:
            setattr(rule, name, _read(name, value, groups))
        except ValueError as error:
            mistakes.append(Mistake(at, f"{name}: {error}"))
    if rule.counts_time:
        for name in ("thresholds", "recovery"):
            if name in said:
                try:
                    setattr(rule, name, _times(said[name][0]))
                except ValueError as error:
                    mistakes.append(Mistake(said[name][1], f"{name}: {error}"))
    return rule


def _read(name: str, value: Any, groups: Mapping[str, CloudGroup]) -> Any:
    if name in _TEXTS:
        if not isinstance(value, str):
            raise ValueError("Give text; put it in quotes if it looks like something else.")
        return value
    if name in _SPANS:
        return _span(value)
    if name in _NUMBERS:
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            raise ValueError("Give a finite number.")
        return value
    if name == "enabled":
        if not isinstance(value, bool):
            raise ValueError("Give true or false.")
        return value
    if name == "group":
        if not isinstance(value, str) or value not in groups:
            raise ValueError(f"There is no cloud group {value!r}.")
        return groups[value]
    if name == "server":
        found = list(Server.objects.filter(host=str(value)).exclude(status="retired")[:2])
        if len(found) != 1:
            raise ValueError(f"There is {'no' if not found else 'more than one'} server {value!r}.")
        return found[0]
    if name == "tags":
        return selectors.parse(value) if isinstance(value, str) else value
    return value


def _times(value: Any) -> Any:
    """Limits of time as people write them, in seconds."""
    if isinstance(value, Mapping):
        return {key: _times(one) for key, one in value.items()}
    return value if value is None else _span(value).total_seconds()


def _span(value: Any) -> timedelta:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("Write a span like 20 s, 5 min or 1 h.")
    try:
        return read_span(str(value))
    except BadSpan as error:
        raise ValueError(str(error)) from error


def _judge(rule: Rule, said: _Said, line: int, mistakes: list[Mistake]) -> None:
    try:
        rule.full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        for name, texts in error.message_dict.items():
            at = said[name][1] if name in said else line
            mistakes += [Mistake(at, f"{name}: {text}") for text in texts]


# -- compare and apply --------------------------------------------------------


def diff(wanted: Iterable[Rule], prune: bool = False) -> list[Change]:
    """What would have to be done for these rules to be as wanted; with `prune` others go."""
    present = {key_of(rule): rule for rule in Rule.objects.select_related("group", "server")}
    found: list[Change] = []
    named = set()
    for rule in wanted:
        key = key_of(rule)
        named.add(key)
        known = present.get(key)
        after = body(rule)
        if known is None:
            found.append(Change("add", key, rule))
            continue
        before = body(known)
        names = [name for name in Rule.SAID if before.get(name) != after.get(name)]
        if names:
            fields = {name: (before.get(name), after.get(name)) for name in names}
            _take_over(known, rule)
            found.append(Change("change", key, known, fields))
    if prune:
        found += [Change("remove", key, rule) for key, rule in present.items() if key not in named]
    return found


def _take_over(known: Rule, wanted: Rule) -> None:
    for name in Rule.SAID:
        setattr(known, name, getattr(wanted, name))


def words(value: Any) -> str:
    """A term as people read it."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {words(one)}" for name, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
