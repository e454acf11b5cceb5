"""What is wrong with the ecash, or with its mint."""

from routstr.errors.base import RETRY_AFTER_S, RoutstrError


class TokenError(RoutstrError):
    """The Cashu token could not be used."""

    status, type, code = 400, "cashu_error", "cashu_token_redemption_failed"


class InvalidToken(TokenError):
    """The Cashu token is malformed."""

    type, code = "invalid_token", "invalid_cashu_token"


class TokenAlreadySpent(TokenError):
    """The Cashu token was already spent."""

    type, code = "token_already_spent", "cashu_token_already_spent"


class UntrustedMint(TokenError):
    """This node does not accept that mint."""

    type, code = "untrusted_mint", "cashu_untrusted_source_mint"


class TokenZeroValue(TokenError):
    """The Cashu token is worth nothing."""

    code = "cashu_token_zero_value"


class TokenRedemptionFailed(TokenError):
    """The mint refused the Cashu token."""


class SwapFeesExceedAmount(RoutstrError):
    """The mint's fees are higher than the token's value."""

    status, type, code = 422, "mint_error", "cashu_token_swap_fees_exceed_amount"


class MintUnreachable(RoutstrError):
    """The mint cannot be reached. Nothing is lost: send the same token again later."""

    status, type, code = 503, "mint_unreachable", "cashu_mint_unreachable"
    retry_after_default_s = RETRY_AFTER_S


class MintRateLimited(MintUnreachable):
    """The mint is limiting requests. Nothing is lost: send the same token again later."""

    type, code = "mint_rate_limited", "cashu_mint_rate_limited"
