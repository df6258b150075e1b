"""The assertions of one policy, each taken once: what nobody takes is named at the end.

So nothing that a policy says is passed over in silence: an assertion is honoured, or refused, or
told of (features PO-08, PO-10).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

from castile.errors import PolicyError
from castile.messages.policy import Assertion
from castile.policy.extensions import TOLERATED, UNAVAILABLE
from castile.policy.findings import Finding
from castile.policy.vocabulary import is_known, label


class Unusable(PolicyError):
    """This alternative can't be used: the text names the assertion, its place and what to do."""


class Notes:
    """What the reading of one alternative has to tell, and how strict it is."""

    def __init__(
        self, subject_of: Callable[[Assertion], str], *, strict: bool = False, ignore: Collection[str] = ()
    ) -> None:
        self.strict = strict
        self._subject_of = subject_of
        self._ignore = frozenset(ignore)
        self.findings: list[Finding] = []

    def fresh(self) -> Notes:
        """The same with nothing found yet."""
        return Notes(self._subject_of, strict=self.strict, ignore=self._ignore)

    @property
    def distinct(self) -> tuple[Finding, ...]:
        """What was found, once each."""
        return tuple({(each.text, each.place): each for each in self.findings}.values())

    @property
    def warnings(self) -> int:
        """How much of what was read isn't understood."""
        return sum(each.level == "warning" for each in self.distinct)

    def refuse(self, assertion: Assertion, reason: str, remedy: str = "") -> Unusable:
        """The error that names this assertion; to be raised."""
        ignored = f"Settings(ignore_assertions=({label(assertion.name)!r},))"
        advice = remedy or f"if the service does without it: {ignored}"
        where = f"{assertion.place}: " if assertion.place.document else ""
        return Unusable(f"{where}{self._named(assertion)} {reason}; {advice}")

    def unsure(self, assertion: Assertion, text: str) -> None:
        """A client may go on; whoever is strict, as a service is, may not."""
        if self.strict:
            raise self.refuse(assertion, text)
        self.findings.append(Finding("warning", "L-14", f"{self._named(assertion)} {text}", assertion.place))

    def left(self, assertion: Assertion) -> None:
        """An assertion that nothing has taken. Raises `Unusable`."""
        short = label(assertion.name)
        if {short, assertion.name} & self._ignore:
            self._passed(assertion, "is ignored, as Settings.ignore_assertions says")
        elif assertion.ignorable:
            self._passed(assertion, "is ignored: it is marked wsp:Ignorable")
        elif short in UNAVAILABLE:
            raise self.refuse(assertion, *UNAVAILABLE[short])
        elif short.partition(":")[0] in TOLERATED or short in TOLERATED:
            self._passed(assertion, "is the other side's own business and is ignored")
        elif is_known(assertion.name):
            raise self.refuse(assertion, "isn't understood here")
        else:
            self.unsure(assertion, "is of a vendor that castile doesn't know")

    def _passed(self, assertion: Assertion, text: str) -> None:
        self.findings.append(Finding("info", "L-14", f"{self._named(assertion)} {text}", assertion.place))

    def _named(self, assertion: Assertion) -> str:
        """QName and subject."""
        short = label(assertion.name)
        name = short if short == assertion.name else f"{short} ({assertion.name})"
        return f"{name} of {self._subject_of(assertion)}"


class Scope:
    """What stands together: an alternative, or the nested policy and parameters of an assertion."""

    def __init__(self, assertions: Iterable[Assertion], notes: Notes) -> None:
        self.notes = notes
        self._left = list(assertions)

    def take(self, *labels: str) -> list[Assertion]:
        """Every assertion of these names."""
        found = [each for each in self._left if label(each.name) in labels]
        self._left = [each for each in self._left if label(each.name) not in labels]
        return found

    def has(self, *labels: str) -> bool:
        """Whether one of these is left to take."""
        return any(label(each.name) in labels for each in self._left)

    def one(self, *labels: str) -> Assertion | None:
        """The assertion of one of these names; `Unusable` where there are two that differ."""
        found = list(dict.fromkeys(self.take(*labels)))
        if len(found) > 1:
            raise self.notes.refuse(found[1], f"stands beside another {label(found[0].name)}")
        return found[0] if found else None

    def flag(self, *labels: str) -> bool:
        """Whether one of these is there; they have no content, and unknown content is refused."""
        found = self.take(*labels)
        for assertion in found:
            with self.inside(assertion):
                pass
        return bool(found)

    @contextmanager
    def inside(self, assertion: Assertion) -> Iterator[Scope]:
        """Its nested policy and parameters, of which nothing may be left at the end."""
        scope = Scope((*assertion.nested, *assertion.children), self.notes)
        if assertion.policy == ():
            raise self.notes.refuse(assertion, "has a nested policy that nothing satisfies")
        yield scope
        scope.end()

    def end(self) -> None:
        """Name what is left. Raises `Unusable`."""
        for assertion in self._left:
            self.notes.left(assertion)
        self._left = []

