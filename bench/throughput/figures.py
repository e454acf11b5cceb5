"""What a run found: figures by name, of one thing at a time, each the median of its rounds.

A thing's name says what was asked of whom: `whole node sqlite 64 connections 64 keys small`. The
same name in two runs is the same question, so that `make bench-compare` may divide the answers.
"""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

Figures = dict[str, float]
Found = dict[str, Figures]

# Of several rounds these add up; the others are medians.
COUNTED = frozenset({"failed", "requests", "streams"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of whom; `database` is empty of those that have none."""

    part: str
    who: str
    database: str = ""
    connections: int
    keys: int = 0
    body: str = ""

    @property
    def name(self) -> str:
        """The question in words, the same in every run."""
        keys = f"{self.keys} keys" if self.keys else ""
        words = (self.part, self.who, self.database, f"{self.connections} connections", keys)
        return " ".join(word for word in (*words, self.body) if word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The figures of one round."""

    question: Question
    figures: Figures


def together(rounds: Iterable[Answer]) -> Found:
    """The rounds of each question as one, in the order in which they were first asked."""
    asked: dict[str, list[Figures]] = {}
    for each in rounds:
        asked.setdefault(each.question.name, []).append(each.figures)
    return {name: _one(all_) for name, all_ in asked.items()}


def questions(rounds: Iterable[Answer]) -> dict[str, dict[str, object]]:
    """What was asked, by name, as JSON."""
    return {each.question.name: asdict(each.question) for each in rounds}


def _one(rounds: list[Figures]) -> Figures:
    names = dict.fromkeys(name for figures in rounds for name in figures)
    return {name: _of(name, [each[name] for each in rounds if name in each]) for name in names}


def _of(name: str, values: list[float]) -> float:
    return sum(values) if name in COUNTED else statistics.median(values)


def at(found: Mapping[str, Figures], name: str, figure: str) -> float | None:
    """A figure, if it was measured."""
    return found.get(name, {}).get(figure)
