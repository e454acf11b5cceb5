"""What a program on LiteLLM's client does at a node: `litellm_program.py BASE_URL KEY MODEL`.

Prints one JSON object: what each call gave, as LiteLLM tells it; warnings go where users see them.
"""

import json
import sys
import warnings

import litellm

litellm.suppress_debug_info = True  # it would print where to get help


def main(base_url: str, key: str, model: str) -> dict[str, object]:
    ask = {
        "model": f"openai/{model}",
        "api_base": base_url,
        "api_key": key,
        "messages": [{"role": "user", "content": "Count to three."}],
        "max_tokens": 50,
        "num_retries": 0,
    }
    said = litellm.completion(**ask)
    pieces = list(litellm.completion(**ask, stream=True, stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    usage = next(piece.usage for piece in pieces if getattr(piece, "usage", None))
    vectors = litellm.embedding(
        model=f"openai/{model}", api_base=base_url, api_key=key, input=["one", "two"]
    )
    try:
        litellm.completion(**{**ask, "model": "openai/no-such-model"})
        refusal = ""
    except litellm.BadRequestError as error:
        refusal = type(error).__name__
    return {
        "completion": {"text": said.choices[0].message.content, "usage": said.usage.model_dump()},
        "stream": {"text": text, "usage": usage.model_dump()},
        "embedding": {"vectors": len(vectors.data), "usage": vectors.usage.model_dump()},
        "refusal": refusal,
    }


if __name__ == "__main__":
    # It declares `usage.cost` a number; here it is the object that the contract has.
    warnings.filterwarnings("ignore", message=r"Pydantic serializer warnings:\n.*field_name='cost'")
    print(json.dumps(main(*sys.argv[1:])))
