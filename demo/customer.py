"""A customer of the node: the official OpenAI SDK for requests, plain HTTP for the money.

Whoever shows a credential is served: an `sk-` key, or a Cashu token in its place.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpx
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types import CompletionUsage

from demo.books import expect

TIMEOUT_S: Final = 30

Answer = dict[str, Any]  # the node's JSON, whose numbers the demo then compares with its own


class NodeRefused(Exception):
    """The node answered with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a request brought: the text, the usage, and what the node says it cost, in msat."""

    text: str
    words_in: int
    words_out: int
    told_msat: int
    chunks: int = 0


class Customer:
    """Whoever pays. `credential` arguments are keys or tokens."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._http = httpx.AsyncClient(base_url=base_url, timeout=TIMEOUT_S, trust_env=False)
        self._openai: dict[str, AsyncOpenAI] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._openai.values():
            await client.close()
        await self._http.aclose()

    # ── requests, as any program with an OpenAI client makes them ─────────────────────────────

    async def chat(self, credential: str, model: str, prompt: str) -> Reply:
        """A chat completion, whole."""
        answer = await self._client(credential).chat.completions.create(
            model=model, messages=[{"role": "user", "content": prompt}]
        )
        assert answer.usage is not None
        return _reply(prompt, answer.choices[0].message.content or "", answer.usage)

    async def chat_once(
        self, credential: str, model: str, prompt: str, *, repeat_key: str
    ) -> tuple[Reply, str, bool]:
        """The same with an Idempotency-Key; also its receipt, and whether it was given again."""
        raw = await self._client(credential).chat.completions.with_raw_response.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            extra_headers={"Idempotency-Key": repeat_key},
        )
        answer = raw.parse()
        assert answer.usage is not None
        reply = _reply(prompt, answer.choices[0].message.content or "", answer.usage)
        is_repeat = raw.headers.get("idempotent-replayed") == "true"
        return reply, raw.headers["x-routstr-receipt"], is_repeat

    async def stream(self, credential: str, model: str, prompt: str) -> Reply:
        """A chat completion, streamed; its usage comes in the last chunk."""
        text, chunks, usage = "", 0, None
        stream = await self._client(credential).chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            chunks += 1
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage or usage
        assert usage is not None, "the stream ended without usage"
        return _reply(prompt, text, usage, chunks)

    def _client(self, credential: str) -> AsyncOpenAI:
        """The official SDK; its base URL and its key are all that is changed."""
        if credential not in self._openai:
            self._openai[credential] = AsyncOpenAI(
                base_url=self._base_url,
                api_key=credential,
                max_retries=0,
                http_client=DefaultAsyncHttpxClient(trust_env=False, timeout=TIMEOUT_S),
            )
        return self._openai[credential]

    # ── money ─────────────────────────────────────────────────────────────────────────────────

    async def create_key(self, token: str) -> Answer:
        return await self._call(None, "POST", "create", {"initial_balance_token": token})

    async def child_key(self, credential: str, *, limit_msat: int) -> str:
        """A key that spends the money of `credential`, up to a limit."""
        terms = {"balance_limit": limit_msat}
        made = await self._call(credential, "POST", "child-key", terms)
        return str(made["api_keys"][0])

    async def top_up(self, credential: str, token: str) -> Answer:
        return await self._call(credential, "POST", "topup", {"cashu_token": token})

    async def balance_msat(self, credential: str) -> int:
        """What may be spent; nothing is reserved while nothing runs."""
        info = await self._call(credential, "GET", "info")
        expect("what requests hold while none is running", info["reserved"], 0)
        return int(info["balance"])

    async def statement(self, credential: str) -> list[Answer]:
        """Every change of the balance, the oldest first."""
        answer = await self._call(credential, "GET", "transactions")
        return list(reversed(answer["transactions"]))

    async def deposits_sat(self, credential: str) -> list[int]:
        """What was paid in, the oldest first."""
        rows = (await self._call(credential, "GET", "history"))["transactions"]
        return [row["amount"] for row in reversed(rows) if row["type"] == "in"]

    async def withdraw(self, credential: str) -> Answer:
        """Everything, as a token."""
        return await self._call(credential, "POST", "refund", {})

    async def _call(
        self,
        credential: str | None,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
    ) -> Answer:
        headers = {} if credential is None else {"authorization": f"Bearer {credential}"}
        response = await self._http.request(method, f"balance/{path}", json=body, headers=headers)
        answer: Answer = response.json()
        if response.status_code != httpx.codes.OK:
            raise NodeRefused(f"{response.status_code} {answer['error']['message']}")
        return answer


def _reply(prompt: str, text: str, usage: CompletionUsage, chunks: int = 0) -> Reply:
    """The words are counted here, not taken from the usage, which must say the same."""
    reply = Reply(
        text=text,
        words_in=len(prompt.split()),
        words_out=len(text.split()),
        told_msat=(usage.model_extra or {})["cost"]["total_msats"],
        chunks=chunks,
    )
    expect("the usage's prompt tokens", usage.prompt_tokens, reply.words_in)
    expect("the usage's completion tokens", usage.completion_tokens, reply.words_out)
    return reply
