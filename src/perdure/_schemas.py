"""JSON schemas of the types that handlers take and return.

Theory of operation. Each type is described by itself, by msgspec or by pydantic, and comes with the
schemas of the classes it is made of, under their short names. These move into components that all
types of a document share. Two are one component where they are equal with all that they refer to;
else the later one has a number behind its name, be it of another module, or the same model once as
it is read and once as it is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from perdure._annotations import PYDANTIC_MARK, holds_pydantic
from perdure.serde import UNTYPED

# Any, in this module: annotations are any object, and pydantic may not be installed.

Schema = dict[str, Any]

_LOCAL: Final = "#/$local/"


class Components:
    """The components of one document.

    Args:
      prefix: Of the references to them.
      known: Schemas of classes that only whoever encodes them can describe.

    Attributes:
      schemas: By name.
    """

    def __init__(
        self,
        prefix: str = "#/components/schemas/",
        schemas: Mapping[str, Schema] | None = None,
        known: Mapping[type, Schema] | None = None,
    ) -> None:
        self.schemas: dict[str, Schema] = dict(schemas or {})
        self._prefix = prefix
        self._known = known or {}
        self._meanings: dict[str, str] = {}

    def of(self, annotation: Any, *, output: bool) -> Schema:
        """The schema of a type, of which the components it refers to are here.

        It is open, ``{}``, where the type has no schema.

        Args:
          output: It is written, not read: of a pydantic model these differ.
        """
        if annotation is UNTYPED or annotation is object:
            return {}
        if hasattr(annotation, PYDANTIC_MARK):
            return self._of_pydantic(annotation, output)
        try:
            (schema,), parts = msgspec.json.schema_components(
                (annotation,),
                schema_hook=lambda kind: self._of_stranger(kind, output),
                ref_template=_LOCAL + "{name}",
            )
        except Exception:  # msgspec documents none; what it refuses, pydantic may know
            return self._of_pydantic(annotation, output) if holds_pydantic(annotation) else {}
        return self._adopt(schema, parts)

    def _of_stranger(self, kind: type, output: bool) -> Schema:
        """Of a class inside a type of msgspec's, which msgspec does not know."""
        if hasattr(kind, PYDANTIC_MARK):
            return self._of_pydantic(kind, output)
        return self._known.get(kind) or {"description": kind.__name__}  # msgspec takes no empty one

    def _of_pydantic(self, annotation: Any, output: bool) -> Schema:
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUserError
        from pydantic.json_schema import GenerateJsonSchema

        class Open(GenerateJsonSchema):
            """Of what has no schema, the open one, without a warning."""

            def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
                return {}

            def emit_warning(self, kind: Any, detail: str) -> None: ...

        try:
            schema = TypeAdapter(annotation).json_schema(
                ref_template=_LOCAL + "{model}",
                schema_generator=Open,
                mode="serialization" if output else "validation",
            )
        except PydanticUserError:
            return {}
        parts = schema.pop("$defs", {})
        name = getattr(annotation, "__name__", "")
        if hasattr(annotation, PYDANTIC_MARK) and "$ref" not in schema and name.isidentifier():
            # A model is a component also where nothing else refers to it.
            schema, parts = {"$ref": _LOCAL + name}, {**parts, name: schema}
        return self._adopt(schema, parts)

    def _adopt(self, schema: Schema, parts: Mapping[str, Schema]) -> Schema:
        """Take over *parts*, and return *schema* with references to where they are now."""
        names: dict[str, str] = {}
        new: list[str] = []
        for name in parts:
            meaning = _meaning(name, parts)
            names[name] = self._name(name, meaning)
            if self._meanings.get(names[name]) != meaning:
                self._meanings[names[name]] = meaning
                new.append(name)
        for name in new:
            self.schemas[names[name]] = self._moved(parts[name], names)
        moved: Schema = self._moved(schema, names)
        return moved

    def _name(self, name: str, meaning: str) -> str:
        """Where *name* of that meaning is, or is to be."""
        candidate, number = name, 1
        while self._is_taken(candidate) and self._meanings.get(candidate) != meaning:
            number += 1
            candidate = f"{name}{number}"
        return candidate

    def _is_taken(self, name: str) -> bool:
        return name in self.schemas or name in self._meanings

    def _moved(self, node: Any, names: Mapping[str, str]) -> Any:
        """*node* with its references, those in the mappings of discriminators too, led on."""
        if isinstance(node, dict):
            return {key: self._moved(value, names) for key, value in node.items()}
        if isinstance(node, list):
            return [self._moved(value, names) for value in node]
        if isinstance(node, str) and node.startswith(_LOCAL):
            name = node.removeprefix(_LOCAL)
            return self._prefix + names[name] if name in names else node
        return node


def schema_of(annotation: Any, *, output: bool) -> Schema:
    """The schema of a type that holds all it refers to, in ``$defs``."""
    components = Components("#/$defs/")
    schema = components.of(annotation, output=output)
    return {**schema, "$defs": components.schemas} if components.schemas else schema


def _meaning(name: str, parts: Mapping[str, Schema]) -> str:
    """What a part says, with all that it refers to."""
    reached: dict[str, Schema] = {}
    ahead = [name]
    while ahead:
        each = ahead.pop()
        if each not in reached and each in parts:
            reached[each] = parts[each]
            ahead += _references(parts[each])
    return json.dumps([name, reached], sort_keys=True, default=repr)


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [name for value in node.values() for name in _references(value)]
    if isinstance(node, list):
        return [name for value in node for name in _references(value)]
    if isinstance(node, str) and node.startswith(_LOCAL):
        return [node.removeprefix(_LOCAL)]
    return []
