"""Mistral: chat completions with content in parts, tool calls without index, own reasons."""

from typing import ClassVar

from client_sdk.streaming.dialects.openai_chat import OpenAIChat


class Mistral(OpenAIChat):
    """`mistral`."""

    failures: ClassVar[frozenset[str]] = OpenAIChat.failures | {"cancelled"}
