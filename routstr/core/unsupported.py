"""The parameters this node refuses, each with the harm it would do (guarantees, SR-10).

Law: nothing in a body may raise the cost beyond what its price knows, or turn the request to
another place, key or account. Names are compared folded (case, `_` and `-` ignored), because some
upstreams match keys that way, and a spelling we do not see is a price we do not charge.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from routstr.errors import UnsupportedParameter

_PRICE: Final = "it changes the price of tokens"
_SEARCH: Final = "searches are billed apart from tokens"
_SERVER_TOOL: Final = "it runs tools that are billed apart from tokens"
_SAMPLES: Final = "it generates answers that are billed but not returned"
_LIMIT: Final = "it sets a length that the quote does not see"
_ROUTE: Final = "it would choose another model, provider or route than the one quoted"
_ELSEWHERE: Final = "it would send the request to another place"
_ACCOUNT: Final = "it would use another key or account"
_HEADERS: Final = "it would add headers to the upstream request"
_FAKE: Final = "it would replace the answer"
_WRAPPED: Final = "it can carry any other parameter unseen"
_STORED: Final = "it adds stored input that the body does not bound, of any account"
_MEDIA: Final = "audio and images are billed apart from text tokens"
_SECOND: Final = "a second model would be billed"
_UNKNOWN: Final = "this endpoint has no such parameter, so nothing says what it may cost"
_TEMPLATE: Final = "a template can make the prompt longer than the body"
_CACHE: Final = "writing to a cache that lives so long is dearer than this node's price of it"

# Folded name -> harm. null always means absent.
HARMS: Final[Mapping[str, str]] = {
    # dearer
    "servicetier": _PRICE,
    "prediction": "rejected predicted tokens are billed as output",
    "bestof": _SAMPLES,
    "usebeamsearch": _SAMPLES,
    "numbeams": _SAMPLES,
    "numreturnsequences": _SAMPLES,
    "candidatecount": _SAMPLES,
    "numgenerations": _SAMPLES,
    "numcompletions": _SAMPLES,
    "numresults": _SAMPLES,
    "background": "the answer, and its bill, would outlive the request",
    "websearchoptions": _SEARCH,
    "websearch": _SEARCH,
    "enablewebsearch": _SEARCH,
    "enablesearch": _SEARCH,
    "searchoptions": _SEARCH,
    "searchparameters": _SEARCH,
    "searchsettings": _SEARCH,
    "searchtype": _SEARCH,
    "enablecodeinterpreter": _SERVER_TOOL,
    "plugins": _SERVER_TOOL,
    "connectors": _SERVER_TOOL,
    "compoundcustom": _SERVER_TOOL,
    "veniceparameters": _SERVER_TOOL,
    "safetymodel": _SECOND,
    "guardrails": _SECOND,
    "moderation": _SECOND,
    "contextmanagement": _SECOND,
    "speed": _PRICE,
    "inferencegeo": _PRICE,
    "container": _SERVER_TOOL,
    "mcpservers": _SERVER_TOOL,
    "audio": _MEDIA,
    "modalities": _MEDIA,
    "responsemodalities": _MEDIA,
    "chattemplate": _TEMPLATE,
    "promptembeds": "a few bytes can stand for any length of prompt",
    # lengths and counts, where a dialect does not read them itself
    "n": _SAMPLES,
    "maxtokens": _LIMIT,
    "maxcompletiontokens": _LIMIT,
    "maxoutputtokens": _LIMIT,
    "maxnewtokens": _LIMIT,
    "maxtokenstosample": _LIMIT,
    "maxlength": _LIMIT,
    "numpredict": _LIMIT,
    # elsewhere
    "models": _ROUTE,
    "route": _ROUTE,
    "provider": _ROUTE,
    "provideroptions": _ROUTE,
    "llmproviders": _ROUTE,
    "preset": _ROUTE,
    "fallbacks": _ROUTE,
    "fallbackmodels": _ROUTE,
    "contextwindowfallbackdict": _ROUTE,
    "contentpolicyfallbacks": _ROUTE,
    "modellist": _ROUTE,
    "modelinfo": _ROUTE,
    "deploymentid": _ROUTE,
    "tags": _ROUTE,
    "customllmprovider": _ROUTE,
    "userconfig": _ROUTE,
    "regionname": _ROUTE,
    "proxyserverrequest": _ROUTE,
    "apiversion": _ELSEWHERE,
    "kvtransferparams": _ELSEWHERE,
    "datasources": _ELSEWHERE,
    "numretries": "a repeat would be billed again",
    "maxretries": "a repeat would be billed again",
    "organization": _ACCOUNT,
    "organisation": _ACCOUNT,
    "project": _ACCOUNT,
    "accessprograms": _ACCOUNT,
    "betas": _HEADERS,
    "anthropicbeta": _HEADERS,
    "sslverify": "it would weaken the upstream connection",
    # wrappers
    "extrabody": _WRAPPED,
    "extraquery": _WRAPPED,
    "extraparams": _WRAPPED,
    "generationconfig": _WRAPPED,
    "options": _WRAPPED,
    "google": _WRAPPED,
    # input from elsewhere
    "previousresponseid": _STORED,
    "conversation": _STORED,
    "conversationid": _STORED,
    "threadid": _STORED,
    "cachedcontent": _STORED,
    "fileids": _STORED,
    "attachments": _STORED,
    "prompt": _STORED,
    "promptid": _STORED,
    # input that another endpoint reads: here nobody would count it
    "messages": _UNKNOWN,
}

# Harm by a part of the folded name, for families without an end.
_FRAGMENT_HARMS: Final[Mapping[str, str]] = {
    "apikey": _ACCOUNT,
    "accesskey": _ACCOUNT,
    "credential": _ACCOUNT,
    "azuread": _ACCOUNT,
    "authorization": _ACCOUNT,
    "apibase": _ELSEWHERE,
    "baseurl": _ELSEWHERE,
    "endpoint": _ELSEWHERE,
    "webhook": _ELSEWHERE,
    "callback": _ELSEWHERE,
    "proxy": _ELSEWHERE,
    "headers": _HEADERS,
    "costper": _PRICE,
    "mock": _FAKE,
    "litellm": _ROUTE,
    "aws": _ACCOUNT,
    "vertex": _ACCOUNT,
}
_FRAGMENT: Final = re.compile("|".join(_FRAGMENT_HARMS))

# Values that do no harm under an otherwise refused name.
_HARMLESS: Final[Mapping[str, tuple[object, ...]]] = {
    "servicetier": ("default", "standard_only"),
    "speed": ("standard",),
    "inferencegeo": ("global",),
    "background": (False,),
    "n": (1,),
    "bestof": (1,),
    "numbeams": (1,),
    "numreturnsequences": (1,),
    "candidatecount": (1,),
    "usebeamsearch": (False,),
    "enablesearch": (False,),
    "enablecodeinterpreter": (False,),
    "modalities": (["text"],),
    "responsemodalities": (["text"],),
}

# Tools that the client runs itself; any other type runs, and bills, at the upstream.
_CLIENT_TOOLS: Final = frozenset({"function", "custom"})

# Where a cache's lifetime stands, by the folded name around it, and those at the usual price.
_CACHES: Final = frozenset({"cachecontrol", "promptcacheoptions", "promptcachebreakpoint"})
_LIFETIMES: Final = ("5m", "30m", None)
_THOUGHT_MODES: Final = ("standard", None)


def is_function_tool(tool: object) -> bool:
    """Whether the client itself runs the tool, in OpenAI's dialects."""
    kinds = tool_kinds(tool)
    return len(kinds) == 1 and kinds[0] in _CLIENT_TOOLS


def refuse_unsupported(
    body: Mapping[str, object],
    reads: Mapping[str, str],
    *,
    is_closed: bool = False,
    is_client_tool: Callable[[object], bool] = is_function_tool,
) -> None:
    """Raise UnsupportedParameter, naming the parameter and its harm, if `body` has one.

    `reads` are the dialect's own parameters: folded name -> the one spelling that its parser reads.
    They are all there may be if the dialect `is_closed`.
    """
    for name, value in body.items():
        folded = fold(name)
        if folded in reads:
            if name != reads[folded]:
                raise UnsupportedParameter(
                    f"The parameter must be spelled {reads[folded]}.", param=name
                )
        elif value is not None:
            _refuse_harm(name, folded, value)
            if is_closed and folded not in HARMS:
                raise _refused(name, _UNKNOWN)
            if folded == "chattemplatekwargs":
                _refuse_templates(name, value)
    tools = body.get("tools")
    if not all(map(is_client_tool, tools if isinstance(tools, list) else ())):
        raise UnsupportedParameter(
            "Only tools that the client runs are supported here: others are billed apart.",
            param="tools",
        )


def refuse_dear_caches(body: Mapping[str, object], serialised: bytes) -> None:
    """Raise UnsupportedParameter for a cache that is asked to live longer than its price knows.

    Of a body without any lifetime in it, only the bytes are looked at.
    """
    if b'"ttl"' not in serialised.lower():
        return
    level: list[object] = [body]
    while level:
        found = [each for each in level if isinstance(each, dict)]
        for name, value in (member for each in found for member in each.items()):
            if fold(name) in _CACHES and isinstance(value, dict):
                _refuse_lifetime(name, value)
        lists = (each for each in level if isinstance(each, list))
        level = [inner for each in found for inner in each.values()]
        level += [inner for each in lists for inner in each]


def refuse_thought_modes(value: Mapping[str, object]) -> None:
    """Raise UnsupportedParameter for a mode in which a thought is billed otherwise."""
    for name, reasoning in value.items():
        if fold(name) == "reasoning" and isinstance(reasoning, dict):
            for member, mode in reasoning.items():
                if fold(member) == "mode" and mode not in _THOUGHT_MODES:
                    raise UnsupportedParameter(
                        "Only the standard mode of reasoning has a price here.",
                        param=f"{name}.{member}",
                    )


def refuse_file_ids(value: Mapping[str, object], param: str) -> None:
    """Raise UnsupportedParameter if the object names stored files, in whatever spelling."""
    if any(fold(name) in ("fileid", "fileids") and given for name, given in value.items()):
        raise stored_input(param)


def stored_input(param: str) -> UnsupportedParameter:
    """What a reference to anything stored is refused with."""
    return UnsupportedParameter(
        "Stored input is not supported here: it may be that of any account.", param=param
    )


def fold(name: str) -> str:
    """The name as the laxest upstream may read it."""
    return name.casefold().replace("_", "").replace("-", "")


def tool_kinds(tool: object) -> list[str]:
    """Every `type` an upstream could read in the tool, whatever its spelling."""
    if not isinstance(tool, dict):
        return ["none"]
    return [str(value) for name, value in tool.items() if fold(name) == "type"]


def _refuse_harm(name: str, folded: str, value: object) -> None:
    harm = HARMS.get(folded)
    if harm is None:
        found = _FRAGMENT.search(folded)
        if found is None:
            return
        harm = _FRAGMENT_HARMS[found.group()]
    if value not in _HARMLESS.get(folded, ()):
        raise _refused(name, harm)


def _refuse_templates(name: str, words: object) -> None:
    """Switches and words pass: what is made of them is about as long as they are."""
    if not isinstance(words, dict):
        raise _refused(name, _TEMPLATE)
    for member, value in words.items():
        if fold(member) == "chattemplate" or isinstance(value, dict | list):
            raise _refused(f"{name}.{member}"[:100], _TEMPLATE)


def _refuse_lifetime(name: str, cache: Mapping[str, object]) -> None:
    for member, value in cache.items():
        if fold(member) == "ttl" and value not in _LIFETIMES:
            raise _refused(f"{name}.{member}", _CACHE)


def _refused(name: str, harm: str) -> UnsupportedParameter:
    return UnsupportedParameter(f"{name} is not supported here: {harm}.", param=name)
