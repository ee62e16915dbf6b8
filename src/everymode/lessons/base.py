"""What every lesson returns: numbers under names, which JSON can hold and a figure can read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from everymode.errors import DataError

__all__ = ["Lesson"]


@dataclass(frozen=True)
class Lesson:
    """Base of what the lessons return; all fields are plain Python values.

    Attributes:
        name: of the lesson, its figure and its verb.
        pictures: names of the fields that its figure alone needs.
        settings: what was asked for.
    """

    name: ClassVar[str]
    pictures: ClassVar[tuple[str, ...]] = ()

    settings: dict[str, Any]

    @property
    def title(self) -> str:
        """What it teaches, in one line."""
        raise NotImplementedError

    def to_dict(self, *, pictures: bool = True) -> dict[str, Any]:
        """Return `lesson`, `title` and all fields, JSON-ready; `pictures` says whether with those for the figure."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        kept = {name: value for name, value in fields.items() if pictures or name not in self.pictures}
        return {"lesson": self.name, "title": self.title, **kept}

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Self:
        """Return the lesson that `to_dict` described.

        Raises:
            DataError: it is another lesson's, or a field is missing.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in described]
        if described.get("lesson") != cls.name or missing:
            lacks = f"; it lacks {', '.join(missing)}" if missing else ""
            raise DataError(f"this is no result of the lesson {cls.name!r}{lacks}.")
        return cls(**{name: described[name] for name in names})
