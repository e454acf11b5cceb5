"""The parameters this node refuses, each with the harm it would do (guarantees, SR-10).

Law: nothing in a body may raise the cost beyond what its price knows, or turn the request to
another place, key or account. Names are compared folded (case, `_` and `-` ignored), because some
upstreams match keys that way, and a spelling we do not see is a price we do not charge.
"""

import re
from collections.abc import Mapping
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
    "background": "the answer, and its bill, would outlive the request",
    "websearchoptions": _SEARCH,
    "websearch": _SEARCH,
    "enablewebsearch": _SEARCH,
    "enablesearch": _SEARCH,
    "searchoptions": _SEARCH,
    "searchparameters": _SEARCH,
    "searchsettings": _SEARCH,
    "plugins": _SERVER_TOOL,
    "connectors": _SERVER_TOOL,
    "compoundcustom": _SERVER_TOOL,
    "veniceparameters": _SERVER_TOOL,
    "safetymodel": "a second model would be billed",
    "guardrails": "a second model would be billed",
    "audio": _MEDIA,
    "modalities": _MEDIA,
    "responsemodalities": _MEDIA,
    "chattemplate": "a template can make the prompt longer than the body",
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
    "servicetier": ("default",),
    "background": (False,),
    "n": (1,),
    "bestof": (1,),
    "numbeams": (1,),
    "numreturnsequences": (1,),
    "candidatecount": (1,),
    "usebeamsearch": (False,),
    "enablesearch": (False,),
    "modalities": (["text"],),
    "responsemodalities": (["text"],),
}

# Tools that the client runs itself; any other type runs, and bills, at the upstream.
_CLIENT_TOOLS: Final = frozenset({"function", "custom"})


def refuse_unsupported(body: Mapping[str, object], reads: Mapping[str, str]) -> None:
    """Raise UnsupportedParameter, naming the parameter and its harm, if `body` has one.

    `reads` are the dialect's own parameters: folded name -> the one spelling that its parser reads.
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
    _refuse_server_tools(body.get("tools"))


def fold(name: str) -> str:
    """The name as the laxest upstream may read it."""
    return name.casefold().replace("_", "").replace("-", "")


def _refuse_harm(name: str, folded: str, value: object) -> None:
    harm = HARMS.get(folded)
    if harm is None:
        found = _FRAGMENT.search(folded)
        if found is None:
            return
        harm = _FRAGMENT_HARMS[found.group()]
    if value in _HARMLESS.get(folded, ()):
        return
    raise UnsupportedParameter(f"{name} is not supported here: {harm}.", param=name)


def _refuse_server_tools(tools: object) -> None:
    for tool in tools if isinstance(tools, list) else []:
        kinds = _kinds(tool) if isinstance(tool, dict) else []
        if len(kinds) != 1 or kinds[0] not in _CLIENT_TOOLS:
            raise UnsupportedParameter(
                f"Only tools of type function and custom are supported here: {_SERVER_TOOL}.",
                param="tools",
            )


def _kinds(tool: Mapping[str, object]) -> list[str]:
    """Every `type` an upstream could read in the tool, whatever its spelling."""
    return [str(value) for name, value in tool.items() if fold(name) == "type"]
