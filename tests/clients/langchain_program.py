"""What an agent built on LangChain does at a node: `langchain_program.py BASE_URL KEY MODEL`.

Prints one JSON object: what each call gave, as LangChain tells it. A warning is an error.
"""

import json
import sys
import warnings

from langchain_core.messages import AIMessageChunk
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings


@tool
def weather(place: str) -> str:
    """The weather there."""
    return f"sunny in {place}"


def main(base_url: str, key: str, model: str) -> dict[str, object]:
    chat = ChatOpenAI(base_url=base_url, api_key=key, model=model, max_tokens=50, max_retries=0)
    said = chat.invoke("Count to three.")
    pieces = list(chat.stream("Count to three.", stream_usage=True))
    streamed = AIMessageChunk(content="")
    for piece in pieces:
        streamed += piece
    called = chat.bind_tools([weather]).invoke("What is the weather in Oslo?")
    embedder = OpenAIEmbeddings(
        base_url=base_url, api_key=key, model=model, check_embedding_ctx_length=False
    )
    return {
        "invoke": {"text": said.content, "usage": said.usage_metadata},
        "stream": {
            "text": streamed.content,
            "usage": streamed.usage_metadata,
            "pieces": len(pieces),
        },
        "tools": {"calls": called.tool_calls, "usage": called.usage_metadata},
        "embeddings": embedder.embed_documents(["one", "two"]),
    }


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", ResourceWarning)  # it leaves its sockets to the exit
    print(json.dumps(main(*sys.argv[1:])))
