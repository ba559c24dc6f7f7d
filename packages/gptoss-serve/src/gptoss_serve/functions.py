"""The functions of a client: what the model is told, what their arguments must obey, the way back.

```
functions = ClientFunctions()
functions.add("get weather", parameters=schema, strict=True)
functions.descriptions()            # for the developer message
functions["get_weather"].name       # "get weather"
```
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gptoss_harmony import ToolDescription
from gptoss_harmony.grammar import JsonSchema, Lark, Regex, Source
from gptoss_serve.errors import InvalidRequest
from gptoss_serve.names import callable_name

FunctionKind = Literal["function", "custom"]

_ANY_TEXT = Regex(r"(.|\n)*")
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFunction:
    """One function.

    Attributes:
        callable_name: what the model calls.
        name: what the client calls it.
        namespace: the client's group, or None.
        kind: `function` takes JSON, `custom` takes text.
        description: for the model.
        parameters: JSON Schema of the arguments of a `function`.
        strict: whether the arguments must obey.
        grammar: of the text of a `custom` tool; None for any text.
    """

    callable_name: str
    name: str
    namespace: str | None
    kind: FunctionKind
    description: str
    parameters: Mapping[str, Any] | None
    strict: bool
    grammar: Source | None

    def described(self) -> ToolDescription:
        """What the model is told."""
        description = self.description
        parameters: Any = self.parameters
        if self.kind == "custom":
            parameters = {"type": "string", "description": "The text itself, not JSON."}
            if isinstance(self.grammar, Lark | Regex):
                rule = self.grammar.text if isinstance(self.grammar, Lark) else self.grammar.pattern
                description = f"{description}\n\nThe text must match:\n{rule.strip()}".strip()
        return ToolDescription.new(self.callable_name, description, parameters=parameters)

    @property
    def source(self) -> Source:
        """What the arguments are held to under constrained decoding."""
        if self.kind == "custom":
            return self.grammar or _ANY_TEXT
        return JsonSchema(self.parameters if self.strict and self.parameters else _ANY_OBJECT)

    @property
    def wants_constraint(self) -> bool:
        """Whether the client asked for enforcement."""
        return self.strict if self.kind == "function" else self.grammar is not None


class ClientFunctions:
    """All functions of a request, by the name that the model calls."""

    def __init__(self) -> None:
        self._by_callable: dict[str, ClientFunction] = {}

    def __iter__(self) -> Iterator[ClientFunction]:
        return iter(self._by_callable.values())

    def __len__(self) -> int:
        return len(self._by_callable)

    def __contains__(self, name: object) -> bool:
        return name in self._by_callable

    def __getitem__(self, name: str) -> ClientFunction:
        return self._by_callable[name]

    def add(
        self,
        name: str,
        *,
        namespace: str | None = None,
        kind: FunctionKind = "function",
        description: str = "",
        parameters: Mapping[str, Any] | None = None,
        strict: bool = False,
        grammar: Source | None = None,
    ) -> ClientFunction:
        """Take in a function; the same name twice in one namespace is an error.

        Raises:
            InvalidRequest: the name is taken.
        """
        if self.find(name, namespace=namespace) is not None:
            raise InvalidRequest(f"two tools are called {name!r}; rename one", param="tools")
        function = ClientFunction(
            callable_name=callable_name(name, namespace=namespace, taken=self._by_callable),
            name=name,
            namespace=namespace,
            kind=kind,
            description=description,
            parameters=parameters,
            strict=strict,
            grammar=grammar,
        )
        self._by_callable[function.callable_name] = function
        return function

    def find(self, name: str, *, namespace: str | None = None) -> ClientFunction | None:
        """The function that the client calls `name`."""
        found = (f for f in self if f.name == name and f.namespace == namespace)
        return next(found, None)

    def only(self, names: set[str]) -> ClientFunctions:
        """A copy with some of the functions, by callable name."""
        kept = ClientFunctions()
        kept._by_callable = {n: f for n, f in self._by_callable.items() if n in names}
        return kept

    @property
    def callable_names(self) -> list[str]:
        """What the model may call."""
        return list(self._by_callable)

    def descriptions(self) -> list[ToolDescription]:
        """For the developer message."""
        return [function.described() for function in self]

    def sources(self) -> dict[str, Source]:
        """For `AnswerFormat.functions`."""
        return {name: function.source for name, function in self._by_callable.items()}
