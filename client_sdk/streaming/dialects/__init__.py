"""The dialects by name. Each is a small state machine over the events of one provider."""

from client_sdk.streaming.dialects._dialect import Dialect
from client_sdk.streaming.dialects.anthropic import Anthropic
from client_sdk.streaming.dialects.bedrock import Bedrock
from client_sdk.streaming.dialects.cohere import Cohere
from client_sdk.streaming.dialects.gemini import Gemini
from client_sdk.streaming.dialects.mistral import Mistral
from client_sdk.streaming.dialects.ollama import Ollama
from client_sdk.streaming.dialects.openai_chat import OpenAIChat
from client_sdk.streaming.dialects.openai_responses import OpenAIResponses
from client_sdk.streaming.dialects.unknown import Unknown

DIALECTS: dict[str, type[Dialect]] = {
    "openai-chat": OpenAIChat,
    "openai-responses": OpenAIResponses,
    "anthropic": Anthropic,
    "gemini": Gemini,
    "cohere": Cohere,
    "mistral": Mistral,
    "bedrock": Bedrock,
    "ollama": Ollama,
    "unknown": Unknown,
}


def dialect_names() -> tuple[str, ...]:
    """The names of all dialects."""
    return tuple(DIALECTS)


__all__ = ["DIALECTS", "Dialect", "dialect_names"]
