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

# The client's own functions and freeform tools; tools whose shape the Responses API fixes and that
# the client runs; tools of a remote MCP server.
FunctionKind = Literal["function", "custom", "local_shell", "shell", "apply_patch", "mcp"]

_ANY_TEXT = Regex(r"(.|\n)*")
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFunction:
    """One function.

    Attributes:
        callable_name: what the model calls.
        name: what the client calls it.
        namespace: the client's group, or None.
        kind: what it is in the API; `custom` and `apply_patch` take text, the others JSON.
        description: for the model.
        parameters: JSON Schema of the arguments.
        strict: whether the arguments must obey.
        grammar: of the text of a tool that takes text; None for any text.
        runs_here: a call of it does not end the turn; one of the turn's tools answers.
    """

    callable_name: str
    name: str
    namespace: str | None
    kind: FunctionKind
    description: str
    parameters: Mapping[str, Any] | None
    strict: bool
    grammar: Source | None
    runs_here: bool = False

    @property
    def takes_text(self) -> bool:
        """Whether a call carries plain text, not JSON."""
        return self.kind in ("custom", "apply_patch")

    def described(self) -> ToolDescription:
        """What the model is told."""
        description = self.description
        parameters: Any = self.parameters
        if self.kind == "custom":
            parameters = {"type": "string", "description": "The text itself, not JSON."}
            if isinstance(self.grammar, Lark | Regex):
                rule = self.grammar.text if isinstance(self.grammar, Lark) else self.grammar.pattern
                description = f"{description}\n\nThe text must match:\n{rule.strip()}".strip()
        elif self.kind == "apply_patch":
            parameters = {"type": "string", "description": "Formatted patch code"}
        return ToolDescription.new(self.callable_name, description, parameters=parameters)

    @property
    def source(self) -> Source:
        """What the arguments are held to under constrained decoding."""
        if self.takes_text:
            return self.grammar or _ANY_TEXT
        return JsonSchema(self.parameters if self.strict and self.parameters else _ANY_OBJECT)

    @property
    def wants_constraint(self) -> bool:
        """Whether the client asked for enforcement."""
        return self.grammar is not None if self.takes_text else self.strict


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
        runs_here: bool = False,
    ) -> ClientFunction:
        """Take in a function; the same name twice in one namespace is an error.

        Raises:
            InvalidRequest: the name is taken.
        """
        if self._twin(name, namespace, kind) is not None:
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
            runs_here=runs_here,
        )
        self._by_callable[function.callable_name] = function
        return function

    def _twin(self, name: str, namespace: str | None, kind: FunctionKind) -> ClientFunction | None:
        if kind in ("function", "custom"):
            return self.find(name, namespace=namespace)
        wanted = (name, namespace)
        return next((f for f in self.of_kind(kind) if (f.name, f.namespace) == wanted), None)

    def find(self, name: str, *, namespace: str | None = None) -> ClientFunction | None:
        """The function or freeform tool that the client calls `name`."""
        named = (f for f in self if f.kind in ("function", "custom"))
        return next((f for f in named if f.name == name and f.namespace == namespace), None)

    def of_kind(self, kind: str) -> list[ClientFunction]:
        """The tools of a kind."""
        return [function for function in self if function.kind == kind]

    def only(self, names: set[str]) -> ClientFunctions:
        """A copy with some of the functions, by callable name."""
        kept = ClientFunctions()
        kept._by_callable = {n: f for n, f in self._by_callable.items() if n in names}
        return kept

    @property
    def of_client(self) -> list[str]:
        """What the model may call and the client answers, by callable name."""
        return [name for name, function in self._by_callable.items() if not function.runs_here]

    def descriptions(self) -> list[ToolDescription]:
        """For the developer message."""
        return [function.described() for function in self]

    def sources(self) -> dict[str, Source]:
        """For `AnswerFormat.functions`."""
        return {name: function.source for name, function in self._by_callable.items()}
